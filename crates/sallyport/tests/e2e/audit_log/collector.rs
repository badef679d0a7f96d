//! rsyslog and syslog-ng as real processes, as senders and as receivers.

use std::path::{Path, PathBuf};

use sallyport_testkit::{Program, foreign};
use tempfile::TempDir;

use crate::lab::write;

/// A syslog daemon in a directory of its own; dropping it kills it.
pub(crate) struct Daemon {
    pub(crate) program: Program,
    pub(crate) dir: TempDir,
}

impl Daemon {
    /// What a receiver wrote to `out.log`.
    pub(crate) fn written(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("out.log")).unwrap_or_default()
    }

    /// Has a sender send a line, by writing it to the file that it follows.
    #[track_caller]
    pub(super) fn send(&self, line: &str) {
        append(&self.dir.path().join("in.log"), line);
    }
}

#[track_caller]
fn append(path: &Path, line: &str) {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().append(true).open(path);
    writeln!(file.unwrap(), "{line}").unwrap();
}

/// A directory with an empty `in.log`.
fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("in.log"), "");
    dir
}

/// rsyslog with the configuration that `make` writes for its directory; `None` if there is none.
#[track_caller]
pub(crate) fn rsyslog(make: impl FnOnce(&Path) -> String) -> Option<Daemon> {
    let program = foreign("rsyslogd", "Debian package rsyslog, see .ci/run")?;
    let dir = directory();
    write(&dir.path().join("rsyslog.conf"), make(dir.path()));
    Some(Daemon {
        program: start_rsyslog(&program, dir.path()),
        dir,
    })
}

#[track_caller]
pub(super) fn start_rsyslog(program: &Path, dir: &Path) -> Program {
    Program::new(program)
        .arg("-n")
        .args(["-f", "rsyslog.conf", "-i"])
        .arg(dir.join("pid"))
        .arg("-M")
        .arg(modules(program))
        .dir(dir)
        .start()
}

/// The modules beside a program that may have been unpacked anywhere: `…/sbin/rsyslogd` has them
/// in `…/lib/<architecture>/rsyslog`.
fn modules(program: &Path) -> PathBuf {
    let root = program.parent().and_then(Path::parent).unwrap();
    let libraries = std::fs::read_dir(root.join("lib")).unwrap();
    let found = libraries
        .map(|it| it.unwrap().path().join("rsyslog"))
        .find(|it| it.is_dir());
    found.unwrap_or_else(|| panic!("no modules of rsyslog below {}", root.display()))
}

/// syslog-ng with the configuration that `make` writes for its directory; `None` if there is none.
#[track_caller]
pub(super) fn syslog_ng(make: impl FnOnce(&Path) -> String) -> Option<Daemon> {
    let program = foreign("syslog-ng", "Debian package syslog-ng-core")?;
    let dir = directory();
    let text = format!(
        "@version: 3.35\noptions {{ stats_freq(0); keep_hostname(yes); }};\n{}",
        make(dir.path())
    );
    write(&dir.path().join("syslog-ng.conf"), text);
    let program = Program::new(program)
        .args([
            "-F",
            "--no-caps",
            "-f",
            "syslog-ng.conf",
            "-R",
            "persist",
            "-c",
            "control",
            "-p",
            "pid",
        ])
        .dir(dir.path())
        .start();
    Some(Daemon { program, dir })
}
