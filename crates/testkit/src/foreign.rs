//! Foreign clients: real programs of other projects that tests run when they are installed.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// With the value `1`, a missing foreign client fails the test instead of skipping it.
const NO_SKIP: &str = "SALLYPORT_TEST_NO_SKIP";

/// Finds the foreign client `program` on the `PATH`; `package` tells how to get it.
///
/// When it is missing, says `SKIPPED <test>: needs <program> (<package>)` past the capture of
/// test output and returns `None`: the test then returns, and whoever reads the run knows.
///
/// # Panics
/// When it is missing and `SALLYPORT_TEST_NO_SKIP=1`, as in CI.
#[track_caller]
pub fn foreign(program: &str, package: &str) -> Option<PathBuf> {
    foreign_in(program, package, &search_path())
}

pub(crate) fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// As [`foreign`], in these directories.
#[track_caller]
pub(crate) fn foreign_in(program: &str, package: &str, path: &OsStr) -> Option<PathBuf> {
    let found = find(program, path);
    if found.is_none() {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let needs = format!("{test}: needs {program} ({package})");
        if std::env::var_os(NO_SKIP).is_some_and(|value| value == "1") {
            panic!("{needs}, and {NO_SKIP}=1 forbids to skip it");
        }
        // Not `eprintln!`: the test harness swallows that for tests that pass. If standard error
        // is closed there is nobody to tell.
        _ = writeln!(std::io::stderr(), "SKIPPED {needs}");
    }
    found
}

fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join(program))
        .find(|path| runs(path))
}

fn runs(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_program_of_every_machine() {
        let sh = foreign("sh", "Debian package dash").unwrap();
        assert!(sh.ends_with("sh"), "{}", sh.display());
    }

    #[test]
    fn a_file_that_is_not_executable_is_not_a_client() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deck");
        std::fs::write(&file, "").unwrap();
        assert_eq!(find("deck", dir.path().as_os_str()), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("deck", dir.path().as_os_str()), Some(file));
    }

    /// A test process of its own, as the variable holds for a whole process.
    #[test]
    fn a_missing_client_is_announced_or_fails() {
        if std::env::var_os("TESTKIT_IS_THE_INNER_RUN").is_some() {
            assert_eq!(foreign("no-such-client", "Debian package none"), None);
            return;
        }
        let this = std::env::current_exe().unwrap();
        let args = [
            "--exact",
            "foreign::tests::a_missing_client_is_announced_or_fails",
        ];
        let inner = || {
            crate::Program::new(&this)
                .args(args)
                .env("TESTKIT_IS_THE_INNER_RUN", "1")
        };
        let run = inner().run(crate::Deadline::secs(60)).success();
        let said = "_is_announced_or_fails: needs no-such-client (Debian package none)\n";
        assert!(
            run.stderr.starts_with("SKIPPED ") && run.stderr.ends_with(said),
            "{run:?}"
        );
        let run = inner().env(NO_SKIP, "1").run(crate::Deadline::secs(60));
        assert!(!run.status.success(), "{run:?}");
        assert!(
            run.stdout
                .contains("SALLYPORT_TEST_NO_SKIP=1 forbids to skip it"),
            "{run:?}"
        );
    }
}
