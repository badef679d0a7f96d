//! The executable: command line, role start-up.

mod administration;
mod allocator;
mod commands;
mod home;
mod logging;
mod shutdown;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A self-hosted API gateway platform that runs behind firewalls.
///
/// Start with `sallyport quickstart`: a control plane, a gateway and an echo service on this
/// machine. A node on another machine takes commands too: `sallyport --target NODE COMMAND`.
#[derive(Debug, Parser)]
#[command(name = "sallyport", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Quickstart(commands::quickstart::Args),
    Gateway(commands::gateway::Args),
    Control(Box<commands::control::Args>),
    Node(commands::node::Args),
    RateLimit(commands::rate_limit::Args),
    Certs(commands::certs::Args),
    Enrol(commands::enrol::Args),
    Wait(commands::wait::Args),
    Audit(commands::audit::Args),
    Backup(commands::backup::Args),
    Keys(commands::keys::Args),
    Maintenance(commands::maintenance::Args),
    Remote(Box<commands::remote::Args>),
    Plugins(commands::plugins::Args),
    Ports(commands::ports::Args),
    Firewall(commands::firewall::Args),
    Doctor(Box<commands::doctor::Args>),
}

fn main() -> ExitCode {
    allocator::set_up();
    sallyport_runtime::open_files::raise();
    let line = commands::remote::with_its_name(std::env::args_os().collect());
    let cli = Cli::parse_from(line);
    let result = match cli.command {
        Command::Quickstart(args) => commands::quickstart::run(&args),
        Command::Gateway(args) => commands::gateway::run(&args),
        Command::Control(args) => commands::control::run(*args),
        Command::Node(args) => commands::node::run(args),
        Command::RateLimit(args) => commands::rate_limit::run(args),
        Command::Certs(args) => commands::certs::run(&args),
        Command::Enrol(args) => commands::enrol::run(&args),
        Command::Wait(args) => commands::wait::run(&args),
        Command::Audit(args) => commands::audit::run(&args),
        Command::Backup(args) => commands::backup::run(&args),
        Command::Keys(args) => commands::keys::run(args),
        Command::Maintenance(args) => commands::maintenance::run(&args),
        Command::Remote(args) => commands::remote::run(&args),
        Command::Plugins(args) => commands::plugins::run(&args),
        Command::Ports(args) => commands::ports::run(&args),
        Command::Firewall(args) => commands::firewall::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the one place where failures are told")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
