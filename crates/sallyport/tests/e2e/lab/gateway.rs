//! Gateways of their own processes: attached to a control plane, or alone.

use std::path::{Path, PathBuf};

use sallyport_testkit::http::{Request, Response, get};
use sallyport_testkit::{Deadline, Launch, Program, eventually, free_port};
use tempfile::TempDir;

use super::{Control, sallyport, soon, write};

/// A certificate with its key, as files.
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// Has `sallyport certs` make one in `dir`.
    #[track_caller]
    pub(crate) fn make(dir: &Path) -> Pair {
        Pair::make_with(&[], dir)
    }

    /// The same as both sides of Kong's shared mode have it.
    #[track_caller]
    pub(crate) fn make_shared(dir: &Path) -> Pair {
        Pair::make_with(&["--name", "kong_clustering"], dir)
    }

    #[track_caller]
    fn make_with(options: &[&str], dir: &Path) -> Pair {
        sallyport()
            .arg("certs")
            .args(options)
            .arg("--out")
            .arg(dir)
            .run(soon())
            .success();
        Pair {
            cert: dir.join("cluster.crt"),
            key: dir.join("cluster.key"),
        }
    }

    /// Stores one that was made otherwise.
    #[track_caller]
    pub(crate) fn store(dir: &Path, cert: &str, key: &str) -> Pair {
        let pair = Pair {
            cert: dir.join("cluster.crt"),
            key: dir.join("cluster.key"),
        };
        write(&pair.cert, cert);
        write(&pair.key, key);
        pair
    }

    #[track_caller]
    pub(crate) fn cert(&self) -> String {
        std::fs::read_to_string(&self.cert).unwrap()
    }

    #[track_caller]
    pub(crate) fn key(&self) -> String {
        std::fs::read_to_string(&self.key).unwrap()
    }
}

/// A hybrid gateway: `sallyport gateway -c kong.conf`.
pub(crate) struct Gateway {
    pub(crate) program: Program,
    /// Port of the proxy.
    pub(crate) port: u16,
    status: u16,
    dir: TempDir,
}

impl Gateway {
    /// One with a new certificate that is pinned to the control plane. It has its configuration
    /// when this returns, if there is one.
    #[track_caller]
    pub(crate) fn start(control: &Control) -> Gateway {
        let dir = tempfile::tempdir().unwrap();
        let pair = Pair::make(dir.path());
        control.pin(&pair.cert());
        let gateway = Gateway::start_with(control, dir, &pair);
        gateway
            .program
            .wait_for_line("control plane connected", soon());
        gateway
    }

    /// One that shows this certificate, whatever the control plane thinks of it.
    #[track_caller]
    pub(crate) fn start_with(control: &Control, dir: TempDir, pair: &Pair) -> Gateway {
        Gateway::start_set(control, dir, pair, "")
    }

    /// One with these further settings.
    #[track_caller]
    pub(crate) fn start_set(control: &Control, dir: TempDir, pair: &Pair, conf: &str) -> Gateway {
        let name = Control::node_name(&control.prefix);
        Gateway::start_at((control, control.port, &name), dir, pair, conf)
    }

    /// One that dials its control plane at another port, or by another name.
    #[track_caller]
    pub(crate) fn start_at(
        at: (&Control, u16, &str),
        dir: TempDir,
        pair: &Pair,
        conf: &str,
    ) -> Gateway {
        Gateway::start_as(sallyport(), at, dir, pair, conf)
    }

    /// One that another program starts: `under` takes the executable and its arguments.
    #[track_caller]
    pub(crate) fn start_under(under: Launch, control: &Control, dir: TempDir) -> Gateway {
        let pair = Pair::make(dir.path());
        control.pin(&pair.cert());
        let name = Control::node_name(&control.prefix);
        let under = under.arg(env!("CARGO_BIN_EXE_sallyport"));
        Gateway::start_as(under, (control, control.port, &name), dir, &pair, "")
    }

    #[track_caller]
    fn start_as(
        executable: Launch,
        (control, control_port, name): (&Control, u16, &str),
        dir: TempDir,
        pair: &Pair,
        conf: &str,
    ) -> Gateway {
        let (port, status) = (free_port(), free_port());
        let text = format!(
            "role = data_plane\n\
             database = off\n\
             prefix = {prefix}\n\
             proxy_listen = 127.0.0.1:{port}\n\
             status_listen = 127.0.0.1:{status}\n\
             admin_listen = off\n\
             log_level = info\n\
             cluster_mtls = pki\n\
             cluster_control_plane = 127.0.0.1:{control_port}\n\
             cluster_server_name = {name}\n\
             cluster_cert = {cert}\n\
             cluster_cert_key = {key}\n\
             lua_ssl_trusted_certificate = {ca}\n\
             {conf}\n",
            prefix = dir.path().join("prefix").display(),
            cert = pair.cert.display(),
            key = pair.key.display(),
            ca = control.ca().display(),
        );
        write(&dir.path().join("kong.conf"), text);
        let program = launch(executable, dir.path(), &[]);
        Gateway {
            program,
            port,
            status,
            dir,
        }
    }

    /// Kills it and starts it again on its files.
    #[track_caller]
    pub(crate) fn kill9_and_start(&mut self) {
        self.kill9_and_start_with(&[]);
    }

    /// The same with variables in its environment.
    #[track_caller]
    pub(crate) fn kill9_and_start_with(&mut self, environment: &[(&str, &str)]) {
        self.program.kill9();
        self.program = launch(sallyport(), self.dir.path(), environment);
        self.program.wait_for_line("gateway started", soon());
    }

    /// Ends it; its files stay as long as what comes back.
    pub(crate) fn into_dir(mut self) -> TempDir {
        self.program.kill9();
        self.dir
    }

    /// One of its last-known-good files.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.dir.path().join("prefix").join(name)
    }

    /// `http://…` of the proxy.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Status of a request to the proxy; 0 if there was no answer.
    pub(crate) fn status_of(&self, path: &str) -> u16 {
        get(self.url(path)).send().map_or(0, |answer| answer.status)
    }

    /// Waits until a request is answered with this status.
    #[track_caller]
    pub(crate) fn wait_for(&self, path: &str, status: u16, deadline: Deadline) {
        eventually(
            &format!("{path} is answered with {status}"),
            deadline,
            || self.status_of(path) == status,
        );
    }

    /// An answer of its Status API.
    #[track_caller]
    pub(crate) fn ask_status(&self, path: &str) -> Response {
        get(format!("http://127.0.0.1:{}{path}", self.status))
            .send()
            .unwrap()
    }
}

fn launch(executable: Launch, dir: &Path, environment: &[(&str, &str)]) -> Program {
    let gateway = executable.args(["gateway", "-c", "kong.conf"]).dir(dir);
    let program = environment
        .iter()
        .fold(gateway, |gateway, (name, value)| gateway.env(name, value))
        .start();
    program.wait_for_line("gateway started", soon());
    program
}

/// A gateway without a control plane, on a declarative file.
pub(crate) struct Alone {
    pub(crate) program: Program,
    pub(crate) port: u16,
    _dir: TempDir,
}

impl Alone {
    /// One that serves this document, with more lines for its `kong.conf`.
    #[track_caller]
    pub(crate) fn start(declarative: &str, more: &str) -> Alone {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let program = Alone::launch(dir.path(), declarative, port, more).start();
        program.wait_for_line("gateway started", soon());
        Alone {
            program,
            port,
            _dir: dir,
        }
    }

    /// What would start it: `kong.conf` and `kong.yml` lie in `dir`.
    #[track_caller]
    pub(crate) fn launch(dir: &Path, declarative: &str, port: u16, more: &str) -> Launch {
        write(&dir.join("kong.yml"), declarative);
        let conf = format!(
            "database = off\n\
             prefix = {}\n\
             declarative_config = kong.yml\n\
             proxy_listen = 127.0.0.1:{port}\n\
             status_listen = off\n\
             admin_listen = off\n\
             log_level = info\n\
             {more}\n",
            dir.display()
        );
        write(&dir.join("kong.conf"), conf);
        sallyport().args(["gateway", "-c", "kong.conf"]).dir(dir)
    }

    /// A GET request to it.
    pub(crate) fn get(&self, path: &str) -> Request {
        get(format!("http://127.0.0.1:{}{path}", self.port))
    }
}
