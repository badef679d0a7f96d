//! `sallyport ports`: the network contract, for people and machines.

use std::path::Path;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use sallyport_contract::{Catalogue, Filter, Role, render, rows};

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

fn role(text: &str) -> Result<Role, String> {
    Role::from_name(text).ok_or_else(|| {
        let all: Vec<_> = Role::ALL.iter().map(ToString::to_string).collect();
        format!("no such role; there are: {}", all.join(", "))
    })
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.more {
        Some(More::Explain(args)) => return super::ports_explain::run(args),
        Some(More::Watch(args)) => return super::ports_watch::run(args),
        None => {}
    }
    let read;
    let catalogue = match args.catalogue.as_str() {
        "own" => sallyport_contract::catalogue(),
        "hosted" => sallyport_contract::hosted_control_plane(),
        "appliance" => sallyport_contract::original_appliance(),
        file => {
            read = catalogue_file(Path::new(file))?;
            &read
        }
    };
    let filter = Filter {
        role: args.role,
        geo: args.geo.clone(),
    };
    let rows = rows(catalogue, &filter)?;
    let text = match args.format {
        Format::Table => render::table(&rows),
        Format::Markdown => render::markdown(&rows),
        Format::Json => render::json(catalogue, &rows),
        Format::Csv => render::csv(&rows),
    };
    super::print(&text)
}

fn catalogue_file(path: &Path) -> anyhow::Result<Catalogue> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the catalogue {}", path.display()))?;
    Catalogue::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}
