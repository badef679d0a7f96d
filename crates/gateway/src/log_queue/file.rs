//! A file that payloads are appended to.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::Ways;
use crate::logs::open_file;

/// An open file.
pub(super) struct Appended {
    path: PathBuf,
    file: File,
    /// How often files had been opened anew when it was opened.
    reopened: u64,
}

impl Appended {
    /// Writes to the file kept open, or opens it. On an error the next write opens it anew.
    pub(super) async fn write(
        kept: Option<Appended>,
        path: &Path,
        ways: &Ways,
        payloads: Vec<Bytes>,
    ) -> Result<Appended, String> {
        let reopened = ways.reopened.load(Ordering::Relaxed);
        let kept = kept.filter(|kept| kept.path == path && kept.reopened == reopened);
        let path = path.to_owned();
        let written = spawn_blocking(move || {
            let mut appended = match kept {
                Some(kept) => kept,
                None => Appended {
                    file: open_file(&path)?,
                    path,
                    reopened,
                },
            };
            for payload in payloads {
                appended.file.write_all(&payload)?;
            }
            Ok::<_, io::Error>(appended)
        });
        match written.await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(panic) => Err(panic.to_string()),
        }
    }
}
