//! `sallyport ports explain`: what a port, contract id or host name is for.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use sallyport_contract::{
    Catalogue, Entry, Filter, Installation, explain, find, installation_rows, render,
};

use strsim::levenshtein;

use super::described::{answer, catalogue, read_installation};

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
    /// Says too whether it applies to this installation, and with which names and ports
    #[arg(long, value_name = "FILE")]
    installation: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let catalogue = catalogue(&args.catalogue)?;
    let installation = args.installation.as_deref().map(read_installation);
    let installation = installation.transpose()?;
    let told = installation.as_ref().and_then(|it| it.base.as_deref());
    let told = args.base.as_deref().or(told);
    let found = match told.or(catalogue.base.as_deref()) {
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
        let near = |id: &str| id.contains(word) || word.contains(id) || levenshtein(id, word) <= 2;
        ids.retain(|id| near(id));
        let hint = match ids.is_empty() {
            true => "`sallyport ports` lists all of them".to_owned(),
            false => format!("did you mean {}?", ids.join(", ")),
        };
        bail!(
            "nothing in the contract {:?} is called {word:?}: it is no port, no id and no host name; {hint}",
            catalogue.name
        );
    }
    let mut texts: Vec<String> = Vec::new();
    for entry in found {
        let mut text = explain(entry);
        if let Some(installation) = &installation {
            text.push_str(&format!(
                "  here      {}\n",
                here(&catalogue, installation, entry)?
            ));
        }
        texts.push(text);
    }
    answer(&texts.join("\n"))
}

/// Whether a row applies to the installation, and as what.
fn here(
    catalogue: &Catalogue,
    installation: &Installation,
    entry: &Entry,
) -> anyhow::Result<String> {
    let rows = installation_rows(catalogue, installation, &Filter::default());
    let rows = rows.map_err(|error| anyhow!("the installation cannot be used: {error}"))?;
    let Some(row) = rows.iter().find(|row| row.entry.id == entry.id) else {
        let feature = entry.feature.as_deref();
        let unused = feature.filter(|it| !installation.features.contains(*it));
        return Ok(match unused {
            Some(feature) => format!("does not apply: the feature `{feature}` is not in use"),
            None => "does not apply: one of its ends, or its name, does not exist".to_owned(),
        });
    };
    let mut text = format!("applies, {}", render::ports(&row.flows));
    if !row.hosts.is_empty() {
        text.push_str(&format!(" at {}", row.hosts.join(", ")));
    }
    if entry.loopback && !installation.exposed.contains(entry.id.as_str()) {
        text.push_str(", on loopback only");
    }
    Ok(text)
}
