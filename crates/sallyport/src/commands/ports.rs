//! `sallyport ports`: the network contract, for people and machines.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::ValueEnum;
use sallyport_contract::{Catalogue, Filter, Role, Row, installation_rows, render, rows};

use super::described::{catalogue, read_installation, role};

/// Prints the network contract: every port, host name and direction.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    more: Option<More>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only connections that this role takes part in, such as `gateway`
    #[arg(long, value_parser = role)]
    role: Option<Role>,
    /// Only this geo, such as `eu`
    #[arg(long)]
    geo: Option<String>,
    /// Whose contract: `own`, `hosted` (the hosted control plane), `appliance` (the original
    /// appliance), or a catalogue file
    #[arg(long, value_name = "NAME|FILE", default_value = "own")]
    catalogue: String,
    /// Only what applies to this installation, with its names and ports (TOML, see
    /// docs/network_contract.md; `sallyport node describe` writes that of a cluster)
    #[arg(long, value_name = "FILE")]
    installation: Option<PathBuf>,
}

/// What else can be done with it.
#[derive(Debug, clap::Subcommand)]
enum More {
    Explain(super::ports_explain::Args),
    Watch(super::ports_watch::Args),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Markdown,
    Json,
    Csv,
}

/// The rows that are asked for: of the whole catalogue, or of one installation.
fn chosen<'a>(args: &Args, catalogue: &'a Catalogue) -> anyhow::Result<Vec<Row<'a>>> {
    let filter = Filter {
        role: args.role,
        geo: args.geo.as_ref().map(|geo| geo.to_ascii_lowercase()),
    };
    let Some(path) = &args.installation else {
        return Ok(rows(catalogue, &filter)?);
    };
    let installation = read_installation(path)?;
    let rows = installation_rows(catalogue, &installation, &filter);
    rows.map_err(|error| anyhow!("{}: {error}", path.display()))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.more {
        Some(More::Explain(args)) => return super::ports_explain::run(args),
        Some(More::Watch(args)) => return super::ports_watch::run(args),
        None => {}
    }
    let catalogue = catalogue(&args.catalogue)?;
    let rows = chosen(args, &catalogue)?;
    let text = match args.format {
        Format::Table => render::table(&rows),
        Format::Markdown => render::markdown(&rows),
        Format::Json => render::json(&catalogue, &rows),
        Format::Csv => render::csv(&rows),
    };
    super::print(&text)
}
