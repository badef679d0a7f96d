//! A file that a node sends: it goes on where an earlier attempt ended, and is compared.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sallyport_wire::appliance_cli::{Command, Progress, Reply};
use sha2::{Digest, Sha256};

/// Characters of the bar.
const BAR: usize = 30;

/// A file on its way.
pub(super) struct Download {
    partial: PathBuf,
    out: Option<PathBuf>,
    file: File,
    there: u64,
    total: u64,
    shows: bool,
}

impl Download {
    /// Opens the file for what comes; what an earlier attempt left in it stays.
    pub(super) fn begin(
        command: &Command,
        arguments: &BTreeMap<String, String>,
        out: Option<&Path>,
    ) -> anyhow::Result<Download> {
        let name = match arguments.get("name") {
            Some(name) => file_name(name)?,
            None => command.name.clone(),
        };
        if let Some(out) = out.filter(|out| out.exists()) {
            bail!("{} is there already", out.display());
        }
        let partial = match out {
            Some(out) => with_ending(out),
            None => with_ending(Path::new(&name)),
        };
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(&partial);
        let file = file.with_context(|| format!("could not write {}", partial.display()))?;
        let there = file.metadata()?.len();
        Ok(Download {
            out: out.map(Path::to_owned),
            partial,
            file,
            there,
            total: 0,
            shows: std::io::stderr().is_terminal(),
        })
    }

    /// Bytes that are there.
    pub(super) fn there(&self) -> u64 {
        self.there
    }

    /// Forgets what an earlier attempt left.
    pub(super) fn start_over(&self) -> anyhow::Result<()> {
        self.file.set_len(0)?;
        Ok(())
    }

    pub(super) fn data(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file
            .write_all(bytes)
            .with_context(|| format!("could not write {}", self.partial.display()))?;
        self.there += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn progress(&mut self, progress: &Progress) {
        self.total = progress.total;
        if self.shows {
            // Who does not see the bar has the file all the same.
            _ = write!(std::io::stderr(), "\r{}", bar(progress));
        }
    }

    /// Compares the file with what the node says of it and gives it its name.
    pub(super) fn finish(mut self, reply: &Reply) -> anyhow::Result<PathBuf> {
        if self.shows && self.total > 0 {
            _ = writeln!(std::io::stderr());
        }
        self.file.flush()?;
        self.file.sync_all()?;
        let wanted = reply.arguments.get("sha256").and_then(|it| it.as_str());
        let wanted = wanted.context("the node did not say what the file is to be")?;
        let found = digest(&self.partial)?;
        if found != wanted {
            fs::remove_file(&self.partial)?;
            bail!(
                "what came is not the file of the node (SHA-256 {found}, not {wanted}), as when it changed \
                 between two attempts; it was removed, try again"
            );
        }
        let path = match &self.out {
            Some(out) => out.clone(),
            None => {
                let name = reply.arguments.get("name").and_then(|it| it.as_str());
                let name = name.context("the node did not name the file")?;
                PathBuf::from(file_name(name)?)
            }
        };
        // Not `rename` alone: that would replace what is there.
        if path.exists() {
            bail!(
                "{} is there already; the file is in {}",
                path.display(),
                self.partial.display()
            );
        }
        fs::rename(&self.partial, &path)
            .with_context(|| format!("could not write {}", path.display()))?;
        Ok(path)
    }

    /// Leaves nothing behind if nothing came.
    pub(super) fn give_up(self) {
        if self.there == 0 {
            _ = fs::remove_file(&self.partial);
        }
    }
}

fn with_ending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// A name from outside, for a file in this directory and nowhere else.
fn file_name(name: &str) -> anyhow::Result<String> {
    let plain = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    match plain {
        true => Ok(name.to_owned()),
        false => bail!("{name:?} is no name for a file here; choose one with --out"),
    }
}

fn digest(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 17]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    let digits = digest.finalize();
    Ok(digits.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How far it is, in one line.
fn bar(progress: &Progress) -> String {
    let Progress { done, total, unit } = progress;
    if *total == 0 {
        return format!("{done} {unit}");
    }
    let part = *done as f64 / *total as f64;
    let full = ((part * BAR as f64) as usize).min(BAR);
    let shown = match unit.as_str() {
        "bytes" => {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            format!("{:.1} of {:.1} MiB", mib(*done), mib(*total))
        }
        unit => format!("{done} of {total} {unit}"),
    };
    format!(
        "[{}{}] {:3.0} % {shown}",
        "#".repeat(full),
        " ".repeat(BAR - full),
        part * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_how_far_it_is() {
        let at = |done, total| {
            let unit = "bytes".to_owned();
            bar(&Progress { done, total, unit })
        };
        let half = format!(
            "[{}{}]  50 % 1.0 of 2.0 MiB",
            "#".repeat(15),
            " ".repeat(15)
        );
        assert_eq!(at(1 << 20, 2 << 20), half);
        assert_eq!(at(7, 0), "7 bytes");
        assert!(at(9, 3).starts_with(&format!("[{}]", "#".repeat(30))));
    }

    #[test]
    fn a_name_stays_in_this_directory() {
        assert_eq!(
            file_name("sallyport-1.tar.gz.age").unwrap(),
            "sallyport-1.tar.gz.age"
        );
        for bad in ["", "..", ".ssh", "a/b", "/etc/passwd", "-rf", "a b", "a\0"] {
            file_name(bad).unwrap_err();
        }
    }
}
