//! A PostgreSQL server of the test's own: made by `initdb` in a temporary directory, run without
//! root, and gone with the test process however that ends.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::foreign::{foreign_in, search_path};
use crate::{Deadline, free_port};

/// Debian's packages, for the message of a skipped test.
const PACKAGE: &str = "Debian package postgresql";
/// The superuser and its password. Local sockets need none.
const USER: &str = "sallyport";
const PASSWORD: &str = "a-secret-of-the-tests";
/// User and group `nobody`, for who runs the tests as root: PostgreSQL refuses to be root.
const NOBODY: u32 = 65_534;

/// Ends the server when its standard input ends: when the value is dropped, or when the test
/// process is gone without having dropped anything.
const WATCHDOG: &str = r#"
"$1/postgres" -D "$2" >"$3" 2>&1 &
server=$!
cat >/dev/null
kill -QUIT "$server" 2>/dev/null
wait "$server"
if [ -n "$4" ]; then rm -rf "$4"; fi
"#;

static SHARED: Mutex<Option<Arc<Postgres>>> = Mutex::new(None);

/// How to make a server; see [`Postgres::custom`].
#[derive(Debug, Default)]
pub struct PostgresSetup {
    /// Lines of `postgresql.conf`.
    pub conf: Vec<String>,
    /// Lines of `pg_hba.conf` before the ordinary ones.
    pub hba: Vec<String>,
    /// Files beside these: name and content. The server alone can read them.
    pub files: Vec<(&'static str, String)>,
    /// Where the data is instead of in the temporary directory; the write-ahead log stays there.
    pub data: Option<PathBuf>,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    bin: PathBuf,
    watchdog: Child,
    setup: PostgresSetup,
    data: PathBuf,
    // Last, as the server has to be gone first.
    dir: tempfile::TempDir,
}

impl Postgres {
    /// The server that the tests of this process share; `None` if there is no PostgreSQL, which is
    /// then said as for any foreign program. Take a [`Postgres::database`] of your own.
    ///
    /// # Panics
    /// When PostgreSQL is there and does not start, or is not there and must be.
    #[track_caller]
    pub fn shared() -> Option<Arc<Postgres>> {
        let mut shared = SHARED.lock().expect("a server that fails stops all tests");
        if shared.is_none() {
            // It lives as long as the process, so its watchdog has to clean up.
            *shared = Some(Arc::new(Postgres::make(PostgresSetup::default(), true)?));
        }
        shared.clone()
    }

    /// A server of its own.
    ///
    /// # Panics
    /// As [`Postgres::shared`].
    #[track_caller]
    pub fn custom(setup: PostgresSetup) -> Option<Postgres> {
        Postgres::make(setup, false)
    }

    #[track_caller]
    fn make(setup: PostgresSetup, for_good: bool) -> Option<Postgres> {
        let initdb = foreign_in("initdb", PACKAGE, &server_path())?;
        let bin = initdb.parent()?.to_owned();
        let dir = temporary();
        let data = setup
            .data
            .clone()
            .unwrap_or_else(|| dir.path().join("data"));
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).expect("the directory is ours");
        own(&password);
        let done = unprivileged(&bin.join("initdb"))
            .args(["-U", USER, "-E", "UTF8", "--locale=C", "--no-sync"])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
            .arg(format!("--pwfile={}", password.display()))
            .arg(format!("--waldir={}", dir.path().join("wal").display()))
            .arg("-D")
            .arg(&data)
            .output()
            .expect("initdb was found");
        assert!(done.status.success(), "{}", text(&done.stderr));
        let port = free_port();
        let mut postgres = Postgres {
            port,
            watchdog: start(&bin, &data, dir.path(), port, &setup, for_good),
            bin,
            setup,
            data,
            dir,
        };
        assert!(postgres.comes_up(), "PostgreSQL: {}", postgres.log());
        Some(postgres)
    }

    /// A standby of this server, which follows it; it becomes one of its own by [`Postgres::promote`].
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    pub fn standby(&self) -> Postgres {
        let dir = temporary();
        let data = dir.path().join("data");
        let done = unprivileged(&self.bin.join("pg_basebackup"))
            .args(["-R", "-X", "stream", "--checkpoint=fast", "--no-sync", "-D"])
            .arg(&data)
            .arg(format!("--waldir={}", dir.path().join("wal").display()))
            .args(["-d", &self.url("postgres")])
            .output()
            .expect("pg_basebackup is beside initdb");
        assert!(done.status.success(), "{}", text(&done.stderr));
        // What the first server's own file says was for it.
        fs::remove_file(data.join("sallyport.conf")).expect("it came with the data");
        let (port, setup) = (free_port(), PostgresSetup::default());
        let mut standby = Postgres {
            port,
            watchdog: start(&self.bin, &data, dir.path(), port, &setup, false),
            bin: self.bin.clone(),
            setup,
            data,
            dir,
        };
        assert!(standby.comes_up(), "PostgreSQL: {}", standby.log());
        standby
    }

    /// Makes a standby a server of its own, which takes writes.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn promote(&self) {
        self.psql("postgres", "SELECT pg_promote()");
    }

    /// A new, empty database; its URL with a password over TCP.
    ///
    /// # Panics
    /// When the server refuses.
    #[track_caller]
    pub fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The URL of a database.
    pub fn url(&self, name: &str) -> String {
        let port = self.port;
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{name}")
    }

    /// The URL of a database over the server's local socket, percent-encoded.
    pub fn local_url(&self, name: &str) -> String {
        let directory = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://{USER}@{directory}:{}/{name}", self.port)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process whose children are all the server's.
    pub fn pid(&self) -> u32 {
        self.watchdog.id()
    }

    /// Runs SQL with `psql` as the superuser; the answer, rows as lines and columns joined by `|`.
    ///
    /// # Panics
    /// When the server refuses it.
    #[track_caller]
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let done = Command::new(self.bin.join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", USER])
            .arg("-h")
            .arg(self.dir.path())
            .args(["-p", &self.port.to_string(), "-d", database, "-c", sql])
            .output()
            .expect("psql is beside initdb");
        assert!(done.status.success(), "{sql}: {}", text(&done.stderr));
        text(&done.stdout).trim_end().to_owned()
    }

    /// Kills every process of the server at once, as a power cut would for it.
    ///
    /// # Panics
    /// When it is not running.
    #[track_caller]
    pub fn kill9(&mut self) {
        let file = self.data.join("postmaster.pid");
        let pid = fs::read_to_string(&file).expect("a running server has a process id");
        let pid = pid.lines().next().unwrap_or_default().to_owned();
        // The others notice that the first one is gone, and end.
        let sent = Command::new("sh")
            .args(["-c", "kill -9 \"$0\"", &pid])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -9 {pid}");
        self.stop();
    }

    /// Starts it again after [`Postgres::kill9`], on its data and port.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start_again(&mut self) {
        let deadline = Deadline::secs(60);
        loop {
            let (bin, dir) = (self.bin.clone(), self.dir.path().to_owned());
            self.watchdog = start(&bin, &self.data, &dir, self.port, &self.setup, false);
            if self.comes_up() {
                return;
            }
            // A process of the killed server may still be on its way out.
            assert!(!deadline.passed(), "PostgreSQL: {}", self.log());
        }
    }

    /// What the server has logged since its last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until it answers; false if it ended instead.
    #[track_caller]
    fn comes_up(&mut self) -> bool {
        let ready = || {
            Command::new(self.bin.join("pg_isready"))
                .arg("-q")
                .arg("-h")
                .arg(self.dir.path())
                .args(["-p", &self.port.to_string(), "-U", USER])
                .status()
                .is_ok_and(|status| status.success())
        };
        let deadline = Deadline::secs(60);
        while !ready() {
            if !self.data.join("postmaster.pid").exists() && self.log().contains("FATAL") {
                self.stop();
                return false;
            }
            assert!(!deadline.passed(), "PostgreSQL: {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        true
    }

    fn stop(&mut self) {
        drop(self.watchdog.stdin.take());
        _ = self.watchdog.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn temporary() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("sallyport-test-postgres-")
        .tempdir()
        .expect("the temporary directory can be written");
    own(dir.path());
    dir
}

fn start(
    bin: &Path,
    data: &Path,
    dir: &Path,
    port: u16,
    setup: &PostgresSetup,
    for_good: bool,
) -> Child {
    let mut conf = vec![
        "listen_addresses = '127.0.0.1'".to_owned(),
        format!("port = {port}"),
        format!("unix_socket_directories = '{}'", dir.display()),
        "max_connections = 200".to_owned(),
        // The tests kill processes, not the machine.
        "fsync = off".to_owned(),
    ];
    conf.extend(setup.conf.iter().cloned());
    let file = data.join("sallyport.conf");
    fs::write(&file, conf.join("\n") + "\n").expect("the directory is ours");
    own(&file);
    let main = data.join("postgresql.conf");
    let text = fs::read_to_string(&main).expect("initdb made it");
    let include = "include = 'sallyport.conf'";
    if !text.contains(include) {
        let mut main = fs::OpenOptions::new()
            .append(true)
            .open(&main)
            .expect("it is there");
        writeln!(main, "{include}").expect("the directory is ours");
        let hba = data.join("pg_hba.conf");
        let ordinary = fs::read_to_string(&hba).expect("initdb made it");
        let lines = setup.hba.join("\n") + "\n" + &ordinary;
        fs::write(&hba, lines).expect("the directory is ours");
    }
    for (name, content) in &setup.files {
        let path = data.join(name);
        fs::write(&path, content).expect("the directory is ours");
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&path, mode).expect("the file is ours");
        own(&path);
    }
    unprivileged(Path::new("sh"))
        .args(["-c", WATCHDOG, "sh"])
        .args([bin, data, &dir.join("log")])
        .arg(if for_good { dir } else { Path::new("") })
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("every POSIX system has sh")
}

/// Where Debian keeps the programs of its PostgreSQL versions, the newest first, and the `PATH`.
fn server_path() -> std::ffi::OsString {
    let versions = fs::read_dir("/usr/lib/postgresql");
    let mut dirs: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    dirs.sort();
    dirs.reverse();
    dirs.extend(std::env::split_paths(&search_path()));
    std::env::join_paths(dirs).unwrap_or_else(|_| search_path())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// A command as `nobody` where we are root.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            &format!("--reuid={NOBODY}"),
            &format!("--regid={NOBODY}"),
            "--clear-groups",
            "--",
        ])
        .arg(program)
        .current_dir("/");
    command
}

/// Gives a file to who runs the server.
fn own(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may do that");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_survives_a_kill_and_ends() {
        let Some(mut postgres) = Postgres::custom(PostgresSetup::default()) else {
            return;
        };
        let url = postgres.database();
        let name = url.rsplit('/').next().unwrap().to_owned();
        postgres.psql(&name, "CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (7)");
        postgres.kill9();
        postgres.start_again();
        assert_eq!(postgres.psql(&name, "SELECT a, a + 1 FROM t"), "7|8");
        let dir = postgres.dir.path().to_owned();
        drop(postgres);
        assert!(!dir.exists());
    }
}
