//! `sallyport maintenance`: access over the system's own OpenSSH, and what it may do.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::{Context, bail};
use sallyport_appliance::maintenance::{Card, Choice, PublicKey, Setup, choose, help};

use crate::home;

/// Access for maintenance, node to node and by way of a jump host, over the system's OpenSSH.
///
/// Nobody gets a shell: each login gets a menu. On each node `maintenance card`, then `maintenance
/// setup` with the cards of the others and the keys of people. See docs/maintenance.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

/// Where the files are.
#[derive(Debug, clap::Args)]
struct Place {
    /// Directory of the keys and lists
    #[arg(long, value_name = "DIR", default_value = "/etc/ssh/sallyport")]
    directory: PathBuf,
}

/// What is checked, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    place: Place,
    /// Account to log in to
    #[arg(long, default_value = "sallyport")]
    user: String,
    /// Settings of the SSH server
    #[arg(long, value_name = "FILE", default_value = "/etc/ssh/sshd_config")]
    sshd_config: PathBuf,
    /// Does not try the other nodes
    #[arg(long)]
    local: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints the line that the other nodes need to know this one; makes this node's key
    Card {
        #[command(flatten)]
        place: Place,
        /// Name of this node
        #[arg(long)]
        name: String,
        /// Address from which this node comes and at which the others reach it
        #[arg(long)]
        address: IpAddr,
        /// Public host key of this node's SSH server
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/etc/ssh/ssh_host_ed25519_key.pub"
        )]
        host_key: PathBuf,
    },
    /// Writes what OpenSSH needs, on this node; may be run again
    Setup {
        #[command(flatten)]
        place: Place,
        /// File for the server's settings; the server reads it at its next start or reload
        #[arg(
            long,
            value_name = "FILE",
            default_value = "/etc/ssh/sshd_config.d/50-sallyport.conf"
        )]
        sshd: PathBuf,
        /// Account to log in to; it has to be there (useradd --system --shell /bin/sh sallyport)
        #[arg(long, default_value = "sallyport")]
        user: String,
        /// File with the cards of the other nodes, one per line
        #[arg(long, value_name = "FILE")]
        cards: Option<PathBuf>,
        /// File with public keys of people, one per line; they come by way of a jump host
        #[arg(long, value_name = "FILE")]
        people: Option<PathBuf>,
        /// Address of a jump host; may be given several times
        #[arg(long = "jump-host", value_name = "ADDRESS")]
        jump_hosts: Vec<IpAddr>,
        /// Port of the nodes' SSH servers
        #[arg(long, default_value_t = sallyport_contract::entry("maintenance").port().get())]
        port: u16,
    },
    /// Ends a key at once, whoever lists it
    Revoke {
        #[command(flatten)]
        place: Place,
        /// File with public keys, one per line
        keys: PathBuf,
    },
    /// Checks this node's side, and the way to each other node
    Check(Check),
    /// What logs in get; reads SSH_ORIGINAL_COMMAND
    Menu {
        #[arg(long, env = "SSH_ORIGINAL_COMMAND", hide = true, default_value = "")]
        asked: String,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Card {
            place,
            name,
            address,
            host_key,
        } => card(&place.directory, name, *address, host_key),
        Command::Setup {
            place,
            sshd,
            user,
            cards,
            people,
            jump_hosts,
            port,
        } => {
            let setup = Setup {
                user: user.clone(),
                executable: std::env::current_exe().context("where is this program?")?,
                directory: place.directory.clone(),
                nodes: lines::<Card>(cards.as_deref())?,
                people: lines::<PublicKey>(people.as_deref())?,
                jump_hosts: jump_hosts.clone(),
                port: *port,
            };
            set_up(&setup, sshd)
        }
        Command::Revoke { place, keys } => revoke(&place.directory, keys),
        Command::Check(it) => check(it),
        Command::Menu { asked } => menu(asked),
    }
}

fn menu(asked: &str) -> anyhow::Result<()> {
    let mut process = match choose(asked).map_err(anyhow::Error::msg)? {
        Choice::Help => return super::print(&help()),
        Choice::Own(words) => {
            let mut process = Process::new(std::env::current_exe()?);
            process.args(words);
            process
        }
        Choice::System(program, words) => {
            let mut process = Process::new(program);
            process.args(words);
            process
        }
    };
    process.env_remove("SSH_ORIGINAL_COMMAND");
    process.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    Err(process.exec()).with_context(|| format!("{asked:?} cannot be run"))
}

/// The lines of a file, but for empty ones and comments.
fn lines<T>(path: Option<&Path>) -> anyhow::Result<Vec<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let text =
        fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    let lines = text.lines().zip(1..).filter(|(line, _)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let read = |(line, at): (&str, usize)| {
        let read = line.parse();
        read.with_context(|| format!("{}: line {at}", path.display()))
    };
    lines.map(read).collect()
}

fn own_key(directory: &Path) -> anyhow::Result<PublicKey> {
    fs::create_dir_all(directory)
        .with_context(|| format!("could not make {}", directory.display()))?;
    let key = directory.join("id_ed25519");
    if !key.exists() {
        let mut keygen = Process::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "sallyport", "-f"])
            .arg(&key);
        succeed(&mut keygen)?;
    }
    let text = fs::read_to_string(key.with_extension("pub"))
        .with_context(|| format!("{} has no public half", key.display()))?;
    Ok(text.parse()?)
}

fn card(directory: &Path, name: &str, address: IpAddr, host_key: &Path) -> anyhow::Result<()> {
    let host = fs::read_to_string(host_key).with_context(|| {
        format!(
            "could not read the host key {}; is an SSH server installed?",
            host_key.display()
        )
    })?;
    let host_key: PublicKey = host
        .parse()
        .with_context(|| host_key.display().to_string())?;
    let card = Card {
        name: name.to_owned(),
        address,
        user_key: own_key(directory)?,
        host_key,
    };
    // Read again: a name that cannot stand in a card is noticed here, not on the other node.
    let read: Card = card.to_string().parse()?;
    super::print(&read.to_string())
}

fn set_up(setup: &Setup, sshd: &Path) -> anyhow::Result<()> {
    let files = setup.files()?;
    let directory = &setup.directory;
    own_key(directory)?;
    let krl = directory.join("revoked.krl");
    if !krl.exists() {
        // Without the list the server lets nobody in: it has to be there, if empty.
        succeed(
            Process::new("ssh-keygen")
                .args(["-q", "-k", "-f"])
                .arg(&krl),
        )?;
    }
    home::write_public(&directory.join("authorized_keys"), &files.authorized_keys)?;
    home::write_public(&directory.join("known_hosts"), &files.known_hosts)?;
    home::write_public(&directory.join("ssh_config"), &files.ssh)?;
    home::write_public(sshd, &files.sshd)?;
    super::print(&format!(
        "{}, {} nodes and {} people may log in as {}.\nThe SSH server reads it at its next reload: \
         systemctl reload ssh\nThen: sallyport maintenance check",
        sshd.display(),
        setup.nodes.len(),
        setup.people.len(),
        setup.user
    ))
}

fn revoke(directory: &Path, keys: &Path) -> anyhow::Result<()> {
    let read = lines::<PublicKey>(Some(keys))?;
    if read.is_empty() {
        bail!("{} has no key", keys.display());
    }
    let krl = directory.join("revoked.krl");
    if !krl.exists() {
        bail!(
            "{} is not there; run `sallyport maintenance setup` first",
            krl.display()
        );
    }
    // Into a copy: a list that is half written would let nobody in.
    let new = directory.join("revoked.krl.new");
    fs::copy(&krl, &new).with_context(|| format!("could not write {}", new.display()))?;
    succeed(
        Process::new("ssh-keygen")
            .args(["-q", "-k", "-u", "-f"])
            .arg(&new)
            .arg(keys),
    )?;
    fs::rename(&new, &krl).with_context(|| format!("could not write {}", krl.display()))?;
    super::print(&format!(
        "{} keys are revoked on this node; revoke them on the others too",
        read.len()
    ))
}

fn succeed(process: &mut Process) -> anyhow::Result<String> {
    let program = process.get_program().to_string_lossy().into_owned();
    let done = process
        .output()
        .with_context(|| format!("{program} cannot be run; is OpenSSH installed?"))?;
    if !done.status.success() {
        bail!(
            "{program} failed: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Checks this node's side, and the way to each other node; fails if anything is wrong.
pub(crate) fn check(it: &Check) -> anyhow::Result<()> {
    let (directory, user, sshd_config) = (it.place.directory.as_path(), &*it.user, &it.sshd_config);
    if !directory.exists() {
        bail!(
            "{} is not there: `sallyport maintenance setup` makes it",
            directory.display()
        );
    }
    let mut faults = 0_usize;
    let mut tell = |what: &str, outcome: Result<String, String>| {
        let line = match outcome {
            Ok(detail) => format!("ok    {what}{detail}"),
            Err(why) => {
                faults += 1;
                format!("FAIL  {what}: {why}")
            }
        };
        super::print(&line)
    };
    for (name, secret) in [
        ("id_ed25519", true),
        ("authorized_keys", false),
        ("known_hosts", false),
        ("revoked.krl", false),
        ("ssh_config", false),
    ] {
        let path = directory.join(name);
        tell(&path.display().to_string(), permissions(&path, secret))?;
    }
    tell(
        "the SSH server's settings",
        effective(directory, user, sshd_config),
    )?;
    let krl = directory.join("revoked.krl");
    let own = directory.join("id_ed25519.pub");
    let revoked = succeed(
        Process::new("ssh-keygen")
            .args(["-Q", "-f"])
            .arg(&krl)
            .arg(&own),
    );
    let revoked = revoked
        .map(|_| String::new())
        .map_err(|error| format!("{error:#}"));
    tell("this node's own key is not revoked", revoked)?;
    if !it.local {
        let config = directory.join("ssh_config");
        let text = home::read_optional(&config)?.unwrap_or_default();
        let hosts = text.lines().filter_map(|line| line.strip_prefix("Host "));
        for host in hosts.filter(|host| *host != "*") {
            let mut ssh = Process::new("ssh");
            ssh.arg("-F").arg(&config).args([host, "version"]);
            let there = succeed(&mut ssh).map(|it| format!(": {}", it.trim()));
            tell(
                &format!("node {host}"),
                there.map_err(|error| format!("{error:#}")),
            )?;
        }
    }
    if faults > 0 {
        bail!("{faults} checks failed");
    }
    Ok(())
}

/// Whether nobody but root can change a file, and nobody else read a secret one.
fn permissions(path: &Path, secret: bool) -> Result<String, String> {
    let meta = fs::metadata(path).map_err(|error| error.to_string())?;
    let mode = meta.permissions().mode();
    if meta.uid() != 0 {
        return Err("it does not belong to root".to_owned());
    }
    let open = if secret { 0o077 } else { 0o022 };
    match mode & open {
        0 => Ok(String::new()),
        _ => Err(format!("its mode is {:04o}, too open", mode & 0o7777)),
    }
}

/// Whether the server's effective settings for the account are those that were written.
fn effective(directory: &Path, user: &str, sshd_config: &Path) -> Result<String, String> {
    let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd"]
        .into_iter()
        .find(|it| Path::new(it).exists());
    let mut sshd = Process::new(sshd.ok_or("there is no sshd")?);
    let connection = format!("user={user},host=x,addr=127.0.0.1");
    sshd.arg("-T")
        .arg("-f")
        .arg(sshd_config)
        .args(["-C", &connection]);
    let text = succeed(&mut sshd).map_err(|error| format!("{error:#}"))?;
    let setting = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_default().trim().to_owned()
    };
    let file = |name: &str| directory.join(name).display().to_string();
    for (name, wanted) in [
        ("authenticationmethods", "publickey".to_owned()),
        ("authorizedkeysfile", file("authorized_keys")),
        ("revokedkeys", file("revoked.krl")),
        ("permittty", "no".to_owned()),
        ("disableforwarding", "yes".to_owned()),
        ("passwordauthentication", "no".to_owned()),
    ] {
        let found = setting(name);
        if found != wanted {
            return Err(format!("{name} is {found:?} for {user}, not {wanted:?}"));
        }
    }
    let forced = setting("forcecommand");
    if !forced.ends_with(" maintenance menu") {
        return Err(format!(
            "forcecommand is {forced:?} for {user}, not the menu"
        ));
    }
    Ok(String::new())
}
