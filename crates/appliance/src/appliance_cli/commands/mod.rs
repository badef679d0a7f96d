//! The commands that every node has. Others come from what the node runs, as more [`Entry`]s.

mod backups;
mod diagnostics;
mod hosts;
mod network;
mod redact;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use sallyport_wire::appliance_cli::{Argument, Command, Reply};

use super::{Call, Entry, Later};
use crate::backup::{Seal, Sources};

pub use backups::Backups;
pub use redact::redact;

/// The last lines of the log, oldest first.
pub type LogTail = Arc<dyn Fn(usize) -> Vec<String> + Send + Sync>;

/// What the commands are about.
#[derive(Clone)]
pub struct Site {
    /// Name of the node.
    pub node: String,
    /// What it was started as: `control`, `node`.
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// When it was started.
    pub started: Instant,
    /// What is backed up; its data directory is that of the node.
    pub sources: Sources,
    /// For whom backups are, where a call does not say it.
    pub seal: Option<Seal>,
    /// Where backups are; `None` until the node has the backup role.
    pub backups: Option<PathBuf>,
    /// The file in which names of nodes have addresses.
    pub hosts: PathBuf,
    /// Configuration files, for diagnostics.
    pub configuration: Vec<PathBuf>,
    /// The log.
    pub logs: LogTail,
}

/// The commands of a site.
pub fn all(site: Site) -> Vec<Entry> {
    let backups = Arc::new(Backups::new(&site));
    let site = Arc::new(site);
    let mut all = vec![entry("ping", "answers PONG", &[], |_| {
        Box::pin(async { Reply::new("PONG") })
    })];
    all.extend(status::entries(&site, &backups));
    all.extend(network::entries());
    all.extend(backups::entries(&backups));
    all.push(hosts::entry_of(&site));
    all.extend(diagnostics::entries(&site, &backups));
    all
}

/// A command from its parts; an argument's name ends with `?` if it may be left out, and begins with
/// `*` if it is a secret.
pub(crate) fn entry(
    name: &str,
    about: &str,
    arguments: &[(&str, &str)],
    run: impl Fn(Call) -> Later<'static, Reply> + Send + Sync + 'static,
) -> Entry {
    let argument = |(name, about): &(&str, &str)| Argument {
        name: name
            .trim_start_matches('*')
            .trim_end_matches('?')
            .to_owned(),
        about: (*about).to_owned(),
        required: !name.ends_with('?'),
        secret: name.starts_with('*'),
    };
    Entry {
        command: Command {
            name: name.to_owned(),
            about: about.to_owned(),
            arguments: arguments.iter().map(argument).collect(),
            file: false,
        },
        run: Arc::new(run),
    }
}

/// As [`entry`], for one that answers with a file.
pub(crate) fn file_entry(
    name: &str,
    about: &str,
    arguments: &[(&str, &str)],
    run: impl Fn(Call) -> Later<'static, Reply> + Send + Sync + 'static,
) -> Entry {
    let mut made = entry(name, about, arguments, run);
    made.command.file = true;
    made
}
