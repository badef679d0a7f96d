//! A control plane as a process, and gateways that follow it.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sallyport_testkit::{Deadline, Program, free_port, http};
use serde_json::{Value, json};

use crate::process::{Server, pinned};

/// A running control plane.
pub(crate) struct Control {
    pub(crate) server: Server,
    /// Of APIs and gateways, with TLS.
    pub(crate) port: u16,
    /// Of the API without TLS.
    pub(crate) plain: u16,
    /// Of the control plane that it makes at its first start.
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) home: PathBuf,
}

impl Control {
    /// Starts one on these cores, with its state in `dir`, or in the database at `url`.
    pub(crate) fn start(
        cores: Option<&str>,
        executable: &Path,
        dir: &Path,
        url: Option<&str>,
    ) -> anyhow::Result<Control> {
        let (port, plain) = (free_port(), free_port());
        let launch = match cores {
            Some(cores) => pinned(cores, [executable]),
            None => Program::new(executable),
        };
        let mut launch = launch
            .args(["control", "--data", "control"])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--listen-plain", &format!("127.0.0.1:{plain}")])
            .dir(dir);
        if let Some(url) = url {
            launch = launch.env("SALLYPORT_DATABASE", url);
        }
        let program = launch.try_start().context("could not start sallyport")?;
        let ready = r"ready control_plane=([0-9a-f-]{36})";
        let ready = program
            .find_line_after(0, ready, Deadline::secs(60))
            .map_err(|why| anyhow::anyhow!("{why}: {}", program.output()))?;
        let home = dir.join("control");
        let token = fs::read_to_string(home.join("token")).context("no token")?;
        Ok(Control {
            server: Server(program),
            port,
            plain,
            id: ready.groups[0].clone(),
            token: token.trim().to_owned(),
            home,
        })
    }

    /// The path of its entities.
    pub(crate) fn core_entities(&self) -> String {
        format!("/v2/control-planes/{}/core-entities", self.id)
    }

    /// The answer to one API call, over a connection that is kept.
    pub(crate) fn call(
        &self,
        stream: &mut TcpStream,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.plain);
        let mut request = http::request(method, url)
            .header("Authorization", format!("Bearer {}", self.token))
            .keep_alive();
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request
            .send_over(stream)
            .with_context(|| format!("{method} {path}"))?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path}: {} {}", answer.status, answer.text());
        }
        Ok(serde_json::from_str(&answer.text()).unwrap_or(Value::Null))
    }

    /// A connection for [`Control::call`].
    pub(crate) fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.plain)).context("no connection")?;
        stream.set_nodelay(true).context("no connection")?;
        Ok(stream)
    }

    /// Starts a gateway that follows it, on these cores, with its files in `dir`.
    pub(crate) fn gateway(
        &self,
        cores: &str,
        executable: &Path,
        dir: &Path,
    ) -> anyhow::Result<Gateway> {
        let mut stream = self.connect()?;
        let made = Program::new(executable)
            .args(["certs", "--out"])
            .arg(dir)
            .run(Deadline::secs(20));
        if !made.status.success() {
            bail!("sallyport certs: {}", made.stderr);
        }
        let (cert, key) = (dir.join("cluster.crt"), dir.join("cluster.key"));
        let text = fs::read_to_string(&cert).context("no certificate")?;
        let here = format!("/v2/control-planes/{}", self.id);
        let pins = format!("{here}/dp-client-certificates");
        self.call(&mut stream, "POST", &pins, Some(&json!({"cert": text})))?;
        let shown = self.call(&mut stream, "GET", &here, None)?;
        let name = shown["config"]["control_plane_endpoint"].as_str();
        let name = name.and_then(|url| url.strip_prefix("https://"));
        let name = name.context("no endpoint")?.to_owned();
        let port = free_port();
        let conf = dir.join("kong.conf");
        let text = format!(
            "role = data_plane\ndatabase = off\nprefix = {}\nproxy_listen = 127.0.0.1:{port}\n\
             status_listen = off\nadmin_listen = off\nproxy_access_log = off\n\
             nginx_main_worker_processes = 1\ncluster_mtls = pki\n\
             cluster_control_plane = 127.0.0.1:{}\ncluster_server_name = {name}\n\
             cluster_cert = {}\ncluster_cert_key = {}\nlua_ssl_trusted_certificate = {}\n",
            dir.join("prefix").display(),
            self.port,
            cert.display(),
            key.display(),
            self.home.join("ca.crt").display(),
        );
        fs::write(&conf, text).context("could not write kong.conf")?;
        let launch = pinned(cores, [executable])
            .args(["gateway", "-c"])
            .arg(&conf)
            .dir(dir);
        let program = launch.try_start().context("could not start a gateway")?;
        program
            .find_line_after(0, "control plane connected", Deadline::secs(60))
            .map_err(|why| anyhow::anyhow!("{why}: {}", program.output()))?;
        Ok(Gateway {
            server: Server(program),
            port,
        })
    }
}

/// A gateway that follows a control plane.
pub(crate) struct Gateway {
    pub(crate) server: Server,
    /// Of its proxy.
    pub(crate) port: u16,
}
