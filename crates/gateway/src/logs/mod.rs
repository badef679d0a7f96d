//! Log files: access logs in nginx's formats, and the error log.
//!
//! Lines are collected in memory on the core that serves, and written by a thread of each file,
//! so that a slow disk holds up nobody. What does not fit into [`QUEUED_BYTES_MAX`] is dropped and
//! counted. SIGHUP and SIGUSR1 make every file be opened anew, as log rotation needs.

mod access;
mod lines;
mod sink;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub(crate) use access::{Access, AccessFormat, Line, LocalTime, StreamLine};
pub(crate) use lines::Lines;
pub use sallyport_plugins::{LogLine, LogLines, Severity};
pub(crate) use sink::open as open_file;
pub use sink::{LogFileError, QUEUED_BYTES_MAX, Sink};

use crate::conf::LogTarget;

/// Target of what is told about clients' faults. nginx tells it at `info`, below `notice`.
pub const CLIENT_FAULTS: &str = "sallyport_gateway::client";

/// The files that a gateway's logs go to; logs that name the same file share it.
#[derive(Default)]
pub(crate) struct LogFiles(Vec<(PathBuf, Sink)>);

impl LogFiles {
    /// The access log of a setting, in the format `default` if it names none; `None` if it is off.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn access(
        &mut self,
        target: &LogTarget,
        default: AccessFormat,
    ) -> Result<Option<Access>, LogFileError> {
        let LogTarget::File { path, format } = target else {
            return Ok(None);
        };
        let known = self.0.iter().find(|(known, _)| known == path);
        let sink = match known {
            Some((_, sink)) => sink.clone(),
            None => {
                let sink = Sink::open(path)?;
                self.0.push((path.clone(), sink.clone()));
                sink
            }
        };
        let format = format.as_deref().and_then(AccessFormat::named);
        Ok(Some(Access {
            sink,
            format: format.unwrap_or(default),
        }))
    }

    /// Opens every file anew.
    pub(crate) fn reopen(&self) {
        self.0.iter().for_each(|(_, sink)| sink.reopen());
    }

    /// Writes what is left. Blocks.
    pub(crate) fn finish(&self) {
        self.0.iter().for_each(|(_, sink)| sink.finish());
    }

    /// Lines that were dropped because a disk was slow.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.iter().map(|(_, sink)| sink.dropped()).sum()
    }
}
