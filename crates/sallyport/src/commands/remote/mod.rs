//! `sallyport --target NODE COMMAND`: commands that a node carries out.

mod connection;
mod download;
mod known_nodes;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};
use sallyport_runtime::tls::CertDigest;
use sallyport_wire::appliance_cli::{Command, Reply, check_arguments};

use self::connection::{Connection, Node};
use self::download::Download;
use super::keys::Own;

/// Gives a command to a node on another machine: `sallyport --target NODE COMMAND [ARGUMENTS…]`.
///
/// Without a command it lists those of the node. Arguments stand in their order or as NAME=VALUE; a
/// value of the form @FILE is the first line of that file, for secrets. See docs/appliance_cli.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The node: a name or an address, with :PORT if it is not 10121
    #[arg(short, long, value_name = "NODE", env = "SALLYPORT_TARGET")]
    target: String,
    /// Port of the node
    #[arg(short, long)]
    port: Option<u16>,
    /// How answers are shown: table or json
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    output: String,
    /// What the node must be known by, as `sallyport keys allowed` prints it there
    #[arg(long, value_name = "DIGITS")]
    fingerprint: Option<CertDigest>,
    /// Takes note of a node that was not known before, without asking
    #[arg(long)]
    accept_new: bool,
    /// File for what the node sends, if it sends one
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    own: Own,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `sallyport --target …` as `sallyport remote --target …`, which is the same and has a name.
pub(crate) fn with_its_name(mut line: Vec<OsString>) -> Vec<OsString> {
    let first = line
        .get(1)
        .and_then(|word| word.to_str())
        .unwrap_or_default();
    let names_target = |flag: &str| first == flag || first.starts_with(&format!("{flag}="));
    if names_target("--target") || names_target("-t") {
        line.insert(1, "remote".into());
    }
    line
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let node = Node::new(&args.target, args.port)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(async {
        let mut connection =
            Connection::open(&node, &args.own, args.fingerprint, args.accept_new).await?;
        let list = connection.ask("commands", BTreeMap::new(), None).await?;
        if list.error.is_some() {
            return finish(args, &list);
        }
        let commands = list.arguments.get("commands").cloned().unwrap_or_default();
        let commands: Vec<Command> =
            serde_json::from_value(commands).context("the node's commands cannot be read")?;
        let Some((name, given)) = args.command.split_first() else {
            return super::print(&table::commands(&node.shown(), &commands));
        };
        if name == "help" {
            return super::print(&table::commands(&node.shown(), &commands));
        }
        let Some(command) = commands.iter().find(|it| it.name == *name) else {
            let names: Vec<&str> = commands.iter().map(|it| it.name.as_str()).collect();
            bail!(
                "{} has no command {name:?}{}; it has {}",
                node.shown(),
                nearest(name, &names),
                names.join(", ")
            );
        };
        let mut arguments = arguments(command, given)?;
        check_arguments(command, &arguments).map_err(anyhow::Error::msg)?;
        let mut download = None;
        if command.file {
            let begun = Download::begin(command, &arguments, args.out.as_deref())?;
            let resumes = command.arguments.iter().any(|it| it.name == "offset");
            if resumes && begun.there() > 0 && !arguments.contains_key("offset") {
                arguments.insert("offset".to_owned(), begun.there().to_string());
            } else if !resumes {
                begun.start_over()?;
            }
            download = Some(begun);
        }
        let mut reply = connection.ask(name, arguments, download.as_mut()).await?;
        if let Some(download) = download {
            match reply.error {
                None => {
                    let path = download.finish(&reply)?;
                    reply = reply.with("file", path.display().to_string());
                }
                Some(_) => download.give_up(),
            }
        }
        finish(args, &reply)
    })
}

/// Shows the reply; a refusal is the command's failure.
fn finish(args: &Args, reply: &Reply) -> anyhow::Result<()> {
    if args.output == "json" {
        super::print(&serde_json::to_string_pretty(reply)?)?;
    } else if reply.error.is_none() {
        super::print(&table::reply(reply))?;
    }
    match &reply.error {
        None => Ok(()),
        Some(word) => bail!("{} ({word})", reply.message),
    }
}

/// The arguments of a command: in their order, or by name.
fn arguments(command: &Command, given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut arguments = BTreeMap::new();
    let mut order = command.arguments.iter();
    for word in given {
        let named = word.split_once('=').filter(|(name, _)| {
            let name = name.trim_start_matches("--");
            command.arguments.iter().any(|it| it.name == name)
        });
        let (name, value) = match named {
            Some((name, value)) => (name.trim_start_matches("--").to_owned(), value),
            None => {
                let next = order.find(|it| !arguments.contains_key(&it.name) && !it.secret);
                let Some(next) = next else {
                    bail!("{word:?} is too much: {}", table::takes(command));
                };
                (next.name.clone(), word.as_str())
            }
        };
        let value = match value.strip_prefix('@') {
            None => value.to_owned(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("could not read {file} for {name}"))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
        };
        if arguments.insert(name.clone(), value).is_some() {
            bail!("{name} is given twice");
        }
    }
    Ok(arguments)
}

/// `, did you mean X?` where a name is close to a known one.
fn nearest(name: &str, known: &[&str]) -> String {
    let close = known.iter().find(|it| {
        it.starts_with(name)
            || name.starts_with(**it)
            || it.replace('-', "") == name.replace(['-', '_'], "")
    });
    close.map_or_else(String::new, |it| format!(", did you mean {it:?}?"))
}

#[cfg(test)]
mod tests {
    use sallyport_wire::appliance_cli::Argument;

    use super::*;

    #[test]
    fn a_target_may_stand_in_front() {
        let line = |words: &[&str]| -> Vec<OsString> { words.iter().map(OsString::from).collect() };
        let own = line(&["sallyport", "--target", "n", "ping"]);
        let named = line(&["sallyport", "remote", "--target", "n", "ping"]);
        assert_eq!(with_its_name(own), named);
        assert_eq!(with_its_name(line(&["sallyport", "-t=n"]))[1], "remote");
        for other in [&["sallyport"][..], &["sallyport", "control", "--target"]] {
            assert_eq!(with_its_name(line(other)), line(other));
        }
    }

    #[test]
    fn arguments_stand_in_their_order_or_by_name() {
        let argument = |name: &str, secret| Argument {
            name: name.to_owned(),
            about: String::new(),
            required: false,
            secret,
        };
        let command = Command {
            name: "x".to_owned(),
            about: String::new(),
            arguments: vec![
                argument("pass", true),
                argument("host", false),
                argument("port", false),
            ],
            file: false,
        };
        let check = |given: &[&str], expected: &[(&str, &str)]| {
            let given: Vec<String> = given.iter().map(|it| (*it).to_owned()).collect();
            let expected = expected
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
            assert_eq!(arguments(&command, &given).unwrap(), expected.collect());
        };
        check(&[], &[]);
        check(&["h", "1"], &[("host", "h"), ("port", "1")]);
        check(&["port=1", "h"], &[("host", "h"), ("port", "1")]);
        check(&["--pass=s=t", "h"], &[("pass", "s=t"), ("host", "h")]);
        check(&["a=b"], &[("host", "a=b")]);
        let given: Vec<String> = ["h", "1", "more"].map(str::to_owned).into();
        assert!(
            arguments(&command, &given)
                .unwrap_err()
                .to_string()
                .contains("too much")
        );
        let given: Vec<String> = ["host=a", "host=b"].map(str::to_owned).into();
        assert!(
            arguments(&command, &given)
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }
}
