//! The nodes that a person knows, each by its certificate, as SSH knows its hosts.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sallyport_runtime::tls::CertDigest;

use crate::home;

/// The file: a line `HOST:PORT DIGITS` for each.
pub(super) struct KnownNodes {
    path: PathBuf,
    all: Vec<(String, CertDigest)>,
}

impl KnownNodes {
    pub(super) fn open(directory: &Path) -> anyhow::Result<KnownNodes> {
        let path = directory.join("known_nodes");
        let text = home::read_optional(&path)?.unwrap_or_default();
        let mut all = Vec::new();
        for (line, at) in text.lines().zip(1..) {
            let read = line
                .split_once(' ')
                .and_then(|(node, digits)| Some((node.to_owned(), digits.trim().parse().ok()?)));
            match read {
                Some(read) => all.push(read),
                None => bail!("{}: line {at} is no known node; remove it", path.display()),
            }
        }
        Ok(KnownNodes { path, all })
    }

    /// Makes sure that a node is the one that is known, or takes note of it.
    pub(super) fn check(
        &mut self,
        node: &str,
        shown: CertDigest,
        wanted: Option<CertDigest>,
        accept_new: bool,
    ) -> anyhow::Result<()> {
        if let Some(wanted) = wanted {
            if wanted != shown {
                bail!("{node} is not the node you want: it shows {shown}, not {wanted}");
            }
            return self.note(node, shown);
        }
        match self.all.iter().find(|(known, _)| known == node) {
            Some((_, known)) if *known == shown => Ok(()),
            Some((_, known)) => bail!(
                "{node} is not the node that you know, or it was set up anew: it shows {shown}, known \
                 is {known}. If that is right, give --fingerprint {shown}; the known nodes are in {}",
                self.path.display()
            ),
            None if accept_new || self.ask(node, shown)? => self.note(node, shown),
            None => bail!("{node} is not known; nothing was sent to it"),
        }
    }

    fn ask(&self, node: &str, shown: CertDigest) -> anyhow::Result<bool> {
        let mut out = std::io::stderr();
        if !std::io::stdin().is_terminal() || !out.is_terminal() {
            bail!(
                "{node} is not known yet. It shows {shown}; compare that with `sallyport keys allowed` on the \
                 node, then give --fingerprint {shown}, or --accept-new to believe it"
            );
        }
        write!(
            out,
            "{node} is not known yet. It shows\n  {shown}\nwhich `sallyport keys allowed` on the node prints as \
             well. Is it the one? (yes/no) "
        )?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(answer.trim() == "yes")
    }

    fn note(&mut self, node: &str, digest: CertDigest) -> anyhow::Result<()> {
        if self
            .all
            .iter()
            .any(|known| *known == (node.to_owned(), digest))
        {
            return Ok(());
        }
        self.all.retain(|(known, _)| known != node);
        self.all.push((node.to_owned(), digest));
        let lines: Vec<String> = self.all.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
        home::write_private(&self.path, &lines.concat())
            .with_context(|| format!("could not take note of {node}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_changed_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (CertDigest([1; 32]), CertDigest([2; 32]));
        let open = || KnownNodes::open(directory.path()).unwrap();
        open().check("n:1", one, Some(two), true).unwrap_err();
        open().check("n:1", one, None, true).unwrap();
        open().check("n:1", one, None, false).unwrap();
        open().check("m:1", two, Some(two), false).unwrap();
        let changed = open()
            .check("n:1", two, None, true)
            .unwrap_err()
            .to_string();
        assert!(changed.contains("--fingerprint"), "{changed}");
        open().check("n:1", two, Some(two), false).unwrap();
        open().check("n:1", two, None, false).unwrap();
        open().check("m:1", two, None, false).unwrap();
        std::fs::write(directory.path().join("known_nodes"), "rubbish").unwrap();
        assert!(KnownNodes::open(directory.path()).is_err());
    }
}
