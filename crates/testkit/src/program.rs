//! A program under test: started, watched line by line, signalled, and never left behind.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use tempfile::TempDir;

use crate::deadline::poll;
use crate::output::{Found, NoSuchLine, Output, Stream};
use crate::{Deadline, eventually};

/// How long an ended program's output may take to arrive: a child of it may hold the pipe open.
const DRAIN: Duration = Duration::from_secs(2);

/// How a program will be started; see [`Program::new`].
#[derive(Debug)]
pub struct Launch {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
}

impl Launch {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Launch {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Launch {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Launch {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in this directory instead of a temporary one of its own, so that a second start
    /// finds what the first one left.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Launch {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(self) -> Program {
        let name = self.program.clone();
        match self.try_start() {
            Ok(program) => program,
            Err(error) => panic!("could not start {}: {error}", name.display()),
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When there is no such program or no temporary directory.
    pub fn try_start(self) -> io::Result<Program> {
        let temp = match &self.dir {
            Some(_) => None,
            None => Some(
                tempfile::Builder::new()
                    .prefix("sallyport-test-")
                    .tempdir()?,
            ),
        };
        let dir = match &temp {
            Some(temp) => temp.path().to_owned(),
            None => self.dir.unwrap_or_default(),
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .current_dir(&dir)
            .stdin(Stdio::null());
        // Settings of whoever runs the tests must not reach the product.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("KONG_") || text.starts_with("SALLYPORT_") {
                command.env_remove(&name);
            }
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let output = Output::of(out.expect("asked for above"), err.expect("asked for above"));
        let words = self.args.iter().map(|arg| arg.to_string_lossy());
        let shown = std::iter::once(self.program.to_string_lossy()).chain(words);
        let shown = shown.collect::<Vec<_>>().join(" ");
        Ok(Program {
            child,
            shown,
            dir,
            _temp: temp,
            output,
            ended: None,
        })
    }

    /// Starts it, waits for its end and returns everything it wrote.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time.
    #[track_caller]
    pub fn run(self, deadline: Deadline) -> Finished {
        let mut program = self.start();
        let status = program.wait(deadline);
        Finished {
            status,
            stdout: program.output.text(Some(Stream::Out)),
            stderr: program.output.text(Some(Stream::Err)),
        }
    }
}

/// A program that ran to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output (the last 20,000 lines).
    pub stdout: String,
    /// What it wrote to standard error (the last 20,000 lines).
    pub stderr: String,
}

impl Finished {
    /// Checks that it ended with status 0, and returns itself.
    ///
    /// # Panics
    /// When it did not; the message shows what it wrote.
    #[track_caller]
    pub fn success(self) -> Finished {
        assert!(
            self.status.success(),
            "{}\n{}{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A running program. Dropping it kills it, and shows its output if the test is failing.
pub struct Program {
    child: Child,
    shown: String,
    dir: PathBuf,
    _temp: Option<TempDir>,
    output: Arc<Output>,
    ended: Option<ExitStatus>,
}

impl Program {
    /// Prepares to start `program`, found on the `PATH` unless it has a slash.
    ///
    /// It will run in a temporary directory of its own, without `KONG_*` and `SALLYPORT_*`
    /// variables of this process, with closed standard input.
    // Not a constructor of itself: a program exists only once it runs.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(program: impl AsRef<OsStr>) -> Launch {
        let program = program.as_ref();
        // It runs in another directory, where a relative path would lead elsewhere.
        let whole = Some(program).filter(|p| p.to_string_lossy().contains('/'));
        let whole = whole.and_then(|p| std::path::absolute(p).ok());
        let program = whole.map_or_else(|| program.to_owned(), PathBuf::into_os_string);
        Launch {
            program,
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
        }
    }

    /// The directory in which it runs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far, both streams, in the order of arrival.
    pub fn output(&self) -> String {
        self.output.text(None)
    }

    /// How many lines it has written so far; a place for [`Program::wait_for_line_after`].
    pub fn lines(&self) -> usize {
        self.output.lines()
    }

    /// Waits for a line, on either stream and also in what it wrote already, that matches the
    /// regular expression `pattern` somewhere.
    ///
    /// # Panics
    /// When the program ends or the deadline passes without one; the output is then shown.
    #[track_caller]
    pub fn wait_for_line(&self, pattern: &str, deadline: Deadline) -> Found {
        self.wait_for_line_after(0, pattern, deadline)
    }

    /// As [`Program::wait_for_line`], but passes over the first `lines` lines.
    ///
    /// # Panics
    /// As [`Program::wait_for_line`].
    #[track_caller]
    pub fn wait_for_line_after(&self, lines: usize, pattern: &str, deadline: Deadline) -> Found {
        match self.find_line_after(lines, pattern, deadline) {
            Ok(found) => found,
            Err(why) => panic!("waited {:?} for {pattern:?}: {why}", deadline.whole()),
        }
    }

    /// As [`Program::wait_for_line_after`], without the panic.
    ///
    /// # Errors
    /// When the program ends or the deadline passes without such a line.
    ///
    /// # Panics
    /// When `pattern` is not a regular expression.
    #[track_caller]
    pub fn find_line_after(
        &self,
        lines: usize,
        pattern: &str,
        deadline: Deadline,
    ) -> Result<Found, NoSuchLine> {
        let regex = match Regex::new(pattern) {
            Ok(regex) => regex,
            Err(error) => panic!("{error}"),
        };
        self.output.find(lines, &regex, deadline)
    }

    /// Kills it at once (SIGKILL) and waits for its end; nothing if it has ended.
    pub fn kill9(&mut self) {
        if self.ended.is_none() {
            _ = self.child.kill(); // it may have ended since
            self.ended = self.child.wait().ok();
        }
    }

    /// Asks it to end (SIGTERM), as a service manager does; see [`Program::wait`].
    ///
    /// # Panics
    /// As [`Program::signal`].
    #[track_caller]
    pub fn terminate(&mut self) {
        self.signal("TERM");
    }

    /// Interrupts it (SIGINT), as Ctrl-C does.
    ///
    /// # Panics
    /// As [`Program::signal`].
    #[track_caller]
    pub fn interrupt(&mut self) {
        self.signal("INT");
    }

    /// Sends the signal of this name, such as `HUP`; nothing if it has ended.
    /// After `STOP` none of its threads runs any more.
    ///
    /// # Panics
    /// When the signal has no such name.
    #[track_caller]
    pub fn signal(&mut self, name: &str) {
        if self.is_running() {
            // The shell's own `kill`, as not every system has the program. The id is still ours:
            // a process that was not waited for keeps it.
            let args = ["-c", r#"kill -s "$0" "$1""#, name, &self.pid().to_string()];
            let sent = Command::new("sh").args(args).output();
            let sent = sent.expect("every POSIX system has sh");
            assert!(
                sent.status.success(),
                "{}",
                String::from_utf8_lossy(&sent.stderr)
            );
            if name == "STOP" {
                eventually("the program stands still", Deadline::secs(20), || {
                    self.stands_still()
                });
            }
        }
    }

    /// Whether `STOP` has reached all of its threads: one that has not run since goes on.
    fn stands_still(&self) -> bool {
        let Ok(mut tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else {
            return true;
        };
        tasks.all(|task| {
            let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
            // the name in brackets may hold anything
            stat.is_ok_and(|it| it.rsplit_once(") ").is_some_and(|it| it.1.starts_with('T')))
        })
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.poll_end().is_none()
    }

    /// Waits for its end and for the rest of its output.
    ///
    /// # Panics
    /// When it is still running at the deadline.
    #[track_caller]
    pub fn wait(&mut self, deadline: Deadline) -> ExitStatus {
        match poll(deadline, || self.poll_end()) {
            Some(status) => {
                self.output.drain(Deadline::after(DRAIN));
                status
            }
            None => panic!("still running after {:?}: {}", deadline.whole(), self.shown),
        }
    }

    fn poll_end(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let ended_before = self.poll_end();
        self.kill9();
        if std::thread::panicking() {
            self.output.drain(Deadline::after(DRAIN));
            let end = match ended_before {
                Some(status) if status.signal().is_some() => format!("killed: {status}"),
                Some(status) => format!("ended: {status}"),
                None => "was running".to_owned(),
            };
            #[expect(
                clippy::print_stderr,
                reason = "a failing test shows what its program said"
            )]
            {
                eprintln!("--- {} ({end})\n{}---", self.shown, self.output());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Launch {
        Program::new("sh").args(["-c", script])
    }

    #[test]
    fn finds_lines_of_both_streams_and_their_groups() {
        let program = sh("echo port=80; echo port=81 tls >&2; exec sleep 1000").start();
        let found = program.wait_for_line(r"port=(\d+)( tls)$", Deadline::secs(20));
        assert_eq!(found.groups, ["81", " tls"]);
        let found = program.wait_for_line(r"port=(\d+)( tls)?$", Deadline::secs(20));
        assert!(found.line.starts_with("port=8"), "{found:?}");
        let after = Deadline::after(Duration::from_millis(20));
        assert_eq!(
            program.find_line_after(2, "port", after),
            Err(NoSuchLine::TimeUp)
        );
    }

    #[test]
    fn notices_an_end_before_the_line() {
        let program = sh("echo no").start();
        assert_eq!(
            program.find_line_after(0, "yes", Deadline::secs(60)),
            Err(NoSuchLine::Ended)
        );
    }

    #[test]
    fn passes_over_lines_it_was_told_to() {
        let program = sh("echo ready 1; echo ready 2; exec sleep 1000").start();
        program.wait_for_line("ready 2", Deadline::secs(20));
        let found = program.wait_for_line_after(1, r"ready (\d)", Deadline::secs(20));
        assert_eq!(found.groups, ["2"]);
    }

    #[test]
    fn runs_to_the_end_and_keeps_streams_apart() {
        let done = sh("printf a; echo b >&2; exit 3").run(Deadline::secs(20));
        assert_eq!(
            (done.status.code(), &*done.stdout, &*done.stderr),
            (Some(3), "a", "b\n")
        );
    }

    #[test]
    fn terminates_and_kills() {
        let script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.01; done";
        let mut program = sh(script).start();
        program.wait_for_line("up", Deadline::secs(20));
        program.terminate();
        assert_eq!(program.wait(Deadline::secs(20)).code(), Some(7));
        assert_eq!(program.output(), "up\nbye\n");

        let mut program = sh("trap '' TERM; echo up; while :; do sleep 0.01; done").start();
        program.wait_for_line("up", Deadline::secs(20));
        program.terminate();
        assert!(program.is_running());
        program.kill9();
        assert_eq!(program.wait(Deadline::secs(20)).signal(), Some(9));
        program.terminate(); // nothing to signal any more
    }

    #[test]
    fn gets_its_environment_and_directory() {
        let done = sh("echo $KONG_A; pwd")
            .env("KONG_A", "x y")
            .run(Deadline::secs(20));
        let (value, dir) = done.stdout.split_once('\n').unwrap();
        assert_eq!(value, "x y");
        assert!(dir.contains("sallyport-test-"), "{dir}");
        assert!(
            !Path::new(dir.trim()).exists(),
            "the directory goes with the program"
        );
    }

    #[test]
    fn dies_with_its_value() {
        let program = sh("echo up; exec sleep 1000").start();
        program.wait_for_line("up", Deadline::secs(20));
        let pid = program.pid();
        drop(program);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
