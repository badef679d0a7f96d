//! `sallyport ports explain`: what a port, contract id or host name is for.

use anyhow::bail;
use sallyport_contract::{explain, find};

use super::described::{answer, catalogue};

/// Says everything about a port, contract id or host name.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `8721`, `8071/udp`, `icmp`, `config_sync`, or a host name
    what: String,
    /// Base domain, for host names below it
    #[arg(long, value_name = "DOMAIN")]
    base: Option<String>,
    /// Whose contract: `own`, `hosted`, `appliance`, or a catalogue file
    #[arg(long, value_name = "NAME|FILE", default_value = "own")]
    catalogue: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let catalogue = catalogue(&args.catalogue)?;
    let found = match args.base.as_deref().or(catalogue.base.as_deref()) {
        Some(base) => find(&catalogue, base, &args.what),
        // Without a base domain, try each ending of the name as one.
        None => {
            let dots = args
                .what
                .match_indices('.')
                .map(|(at, _)| &args.what[at + 1..]);
            let bases = std::iter::once("").chain(dots);
            let tries = bases.map(|base| find(&catalogue, base, &args.what));
            tries
                .into_iter()
                .find(|found| !found.is_empty())
                .unwrap_or_default()
        }
    };
    if found.is_empty() {
        let mut ids: Vec<&str> = catalogue.entries.iter().map(|it| it.id.as_str()).collect();
        let word = args.what.as_str();
        ids.retain(|id| id.contains(word) || word.contains(id));
        let hint = match ids.is_empty() {
            true => "`sallyport ports` lists all of them".to_owned(),
            false => format!("did you mean {}?", ids.join(", ")),
        };
        bail!(
            "nothing in the contract {:?} is called {word:?}: it is no port, no id and no host name; {hint}",
            catalogue.name
        );
    }
    let texts: Vec<String> = found.into_iter().map(explain).collect();
    answer(&texts.join("\n"))
}
