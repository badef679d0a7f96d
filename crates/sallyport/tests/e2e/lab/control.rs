//! A control plane of its own process.

use std::path::{Path, PathBuf};

use sallyport_testkit::http::{Response, request};
use sallyport_testkit::{Finished, Program, eventually, foreign, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{sallyport, soon};

/// Settings of the audit log in its directory, if there are any.
const AUDIT_LOG: &str = "audit.toml";

/// `sallyport control`, with the API on a plain port beside the TLS one.
pub(crate) struct Control {
    /// The process; killed and replaced by [`Control::kill9`] and [`Control::start_again`].
    pub(crate) program: Program,
    /// The TLS port, for gateways and decK.
    pub(crate) port: u16,
    /// Id of the control plane that the first start made.
    pub(crate) id: String,
    /// First label of its host names.
    pub(crate) prefix: String,
    token: String,
    plain: u16,
    dir: TempDir,
}

impl Control {
    #[track_caller]
    pub(crate) fn start() -> Control {
        Control::start_in(tempfile::tempdir().unwrap())
    }

    /// One with these settings of its audit log.
    #[track_caller]
    pub(crate) fn start_with_audit_log(settings: &str) -> Control {
        let dir = tempfile::tempdir().unwrap();
        super::write(&dir.path().join(AUDIT_LOG), settings);
        Control::start_in(dir)
    }

    #[track_caller]
    fn start_in(dir: TempDir) -> Control {
        let (port, plain) = (free_port(), free_port());
        let program = launch(dir.path(), port, plain);
        let ready = program.wait_for_line(r"ready control_plane=([0-9a-f-]{36})", soon());
        let token = std::fs::read_to_string(dir.path().join("control/token")).unwrap();
        let mut control = Control {
            program,
            port,
            id: ready.groups[0].clone(),
            prefix: String::new(),
            token: token.trim().to_owned(),
            plain,
            dir,
        };
        control.prefix = control.prefix_of(&control.id);
        control
    }

    /// Starts it again on its state and ports.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.program = launch(self.dir.path(), self.port, self.plain);
        self.program.wait_for_line(r"ready control_plane=", soon());
    }

    #[track_caller]
    pub(crate) fn kill9(&mut self) {
        self.program.kill9();
    }

    /// Its token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// `http://…` of the API without TLS.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.plain)
    }

    /// Its data directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// The certificate of its authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.home().join("ca.crt")
    }

    /// Name under which gateways of the control plane with this prefix dial it.
    pub(crate) fn node_name(prefix: &str) -> String {
        format!("{prefix}.us.cp0.sallyport.localhost")
    }

    /// One API request; the token goes with it.
    #[track_caller]
    pub(crate) fn api(&self, method: &str, path: &str, body: &Value) -> Response {
        let request = request(method, format!("http://127.0.0.1:{}{path}", self.plain))
            .header("Authorization", format!("Bearer {}", self.token));
        let request = if body.is_null() {
            request
        } else {
            request.json(body)
        };
        request.send().unwrap()
    }

    /// One request for an entity of the first control plane.
    #[track_caller]
    pub(crate) fn core(&self, method: &str, path: &str, body: &Value) -> Response {
        let path = format!("/v2/control-planes/{}/core-entities/{path}", self.id);
        self.api(method, &path, body)
    }

    /// As [`Control::core`], for what has to succeed.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &Value) -> Value {
        let answer = self.core("PUT", path, body);
        assert_eq!(answer.status, 200, "PUT {path}: {}", answer.text());
        answer.json()
    }

    /// A service at this port of loopback and a route to it, both of this name; the route takes
    /// `/name`.
    #[track_caller]
    pub(crate) fn route_to(&self, name: &str, port: u16) {
        let service = json!({"host": "127.0.0.1", "port": port});
        let service = self.put(&format!("services/{name}"), &service);
        let route = json!({"paths": [format!("/{name}")], "service": {"id": service["id"]}});
        self.put(&format!("routes/{name}"), &route);
    }

    /// Pins a certificate to a control plane; returns the id of the pin.
    #[track_caller]
    pub(crate) fn pin_to(&self, id: &str, cert: &str) -> String {
        let path = format!("/v2/control-planes/{id}/dp-client-certificates");
        let answer = self.api("POST", &path, &json!({"cert": cert}));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["item"]["id"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn pin(&self, cert: &str) -> String {
        self.pin_to(&self.id, cert)
    }

    /// Makes another control plane; returns its id.
    #[track_caller]
    pub(crate) fn another(&self, name: &str) -> String {
        let answer = self.api("POST", "/v2/control-planes", &json!({"name": name}));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Prefix of the host names of a control plane.
    #[track_caller]
    pub(crate) fn prefix_of(&self, id: &str) -> String {
        let shown = self
            .api("GET", &format!("/v2/control-planes/{id}"), &Value::Null)
            .json();
        let endpoint = shown["config"]["control_plane_endpoint"].as_str().unwrap();
        let host = endpoint.strip_prefix("https://").unwrap();
        host.split('.').next().unwrap().to_owned()
    }

    /// Waits until this many gateways say that they run on the newest configuration.
    #[track_caller]
    pub(crate) fn wait_in_sync(&self, gateways: usize) {
        let path = |what| format!("/v2/control-planes/{}/{what}", self.id);
        eventually(
            "all gateways acknowledge the newest configuration",
            soon(),
            || {
                let wanted = self
                    .api("GET", &path("expected-config-hash"), &Value::Null)
                    .json();
                let nodes = self.api("GET", &path("nodes"), &Value::Null).json();
                let nodes = nodes["items"].as_array().unwrap();
                let hash = &wanted["expected_hash"];
                nodes
                    .iter()
                    .filter(|node| node["config_hash"] == *hash)
                    .count()
                    == gateways
            },
        );
    }

    /// The address that decK gets.
    pub(crate) fn deck_addr(&self) -> String {
        let (port, id) = (self.port, &self.id);
        format!("https://127.0.0.1:{port}/v2/control-planes/{id}/core-entities")
    }

    /// Runs decK on this control plane in `dir`; `None` if there is no decK.
    #[track_caller]
    pub(crate) fn deck(&self, dir: &Path, args: &[&str]) -> Option<Finished> {
        self.deck_as(&self.token, dir, args)
    }

    /// As [`Control::deck`], with any token.
    #[track_caller]
    pub(crate) fn deck_as(&self, token: &str, dir: &Path, args: &[&str]) -> Option<Finished> {
        let deck = foreign("deck", "Debian package deck")?;
        let ca = std::fs::read_to_string(self.ca()).unwrap();
        let done = Program::new(deck)
            .args(args)
            .args(["--kong-addr", &self.deck_addr(), "--ca-cert", &ca])
            .args(["--headers", &format!("Authorization:Bearer {token}")])
            .env("HOME", dir)
            .dir(dir)
            .run(soon());
        Some(done)
    }
}

fn launch(dir: &Path, port: u16, plain: u16) -> Program {
    let mut launch = sallyport()
        .args(["control", "--data", "control"])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(["--listen-plain", &format!("127.0.0.1:{plain}")])
        .dir(dir);
    if dir.join(AUDIT_LOG).exists() {
        launch = launch.args(["--audit-log", AUDIT_LOG]);
    }
    launch.start()
}
