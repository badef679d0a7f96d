//! A control plane of its own process.

use std::path::{Path, PathBuf};

use sallyport_testkit::http::{Response, request};
use sallyport_testkit::{Finished, Launch, Program, eventually, foreign, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{sallyport, soon};

/// What it says when it is ready, in either form of its log.
const READY: &str = r#"ready"?[ ,]"?control_plane"?[=:]"?([0-9a-f-]{36})"#;
/// Settings of the audit log in its directory, if there are any.
const AUDIT_LOG: &str = "audit.toml";
/// The same of telemetry.
const TELEMETRY: &str = "telemetry.toml";

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
    dir: PathBuf,
    /// Keeps the directory, where it is a temporary one.
    _temp: Option<TempDir>,
    /// URL of its database; a file if there is none.
    database: Option<String>,
    /// Further arguments.
    more: Vec<String>,
}

impl Control {
    #[track_caller]
    pub(crate) fn start() -> Control {
        Control::start_on(None)
    }

    /// One with these settings of its audit log.
    #[track_caller]
    pub(crate) fn start_with_audit_log(settings: &str) -> Control {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        super::write(&dir.join(AUDIT_LOG), settings);
        Control::begin(dir, Some(temp), None)
    }

    /// One with these settings of its telemetry.
    #[track_caller]
    pub(crate) fn start_with_telemetry(settings: &str) -> Control {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        super::write(&dir.join(TELEMETRY), settings);
        Control::begin(dir, Some(temp), None)
    }

    /// One with these further arguments.
    #[track_caller]
    pub(crate) fn start_set(more: &[&str]) -> Control {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        let more = more.iter().map(|it| (*it).to_owned()).collect();
        Control::begin_set(dir, Some(temp), None, more)
    }

    /// One with its state in the PostgreSQL database at a URL.
    #[track_caller]
    pub(crate) fn start_on(database: Option<String>) -> Control {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        Control::begin(dir, Some(temp), database)
    }

    /// One with everything in this directory.
    #[track_caller]
    pub(crate) fn start_in(dir: &Path) -> Control {
        Control::begin(dir.to_owned(), None, None)
    }

    #[track_caller]
    fn begin(dir: PathBuf, temp: Option<TempDir>, database: Option<String>) -> Control {
        Control::begin_set(dir, temp, database, Vec::new())
    }

    #[track_caller]
    fn begin_set(
        dir: PathBuf,
        temp: Option<TempDir>,
        database: Option<String>,
        more: Vec<String>,
    ) -> Control {
        let (port, plain) = (free_port(), free_port());
        let program = launch(&dir, port, plain, database.as_deref(), &more);
        let ready = program.wait_for_line(READY, soon());
        let token = std::fs::read_to_string(dir.join("control/token")).unwrap();
        let mut control = Control {
            program,
            port,
            id: ready.groups[0].clone(),
            prefix: String::new(),
            token: token.trim().to_owned(),
            plain,
            dir,
            _temp: temp,
            database,
            more,
        };
        control.prefix = control.prefix_of(&control.id);
        control
    }

    /// Starts it again on its state and ports.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        let database = self.database.as_deref();
        self.program = launch(&self.dir, self.port, self.plain, database, &self.more);
        self.program.wait_for_line(READY, soon());
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
        self.dir.join("control")
    }

    /// The certificate of its authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.home().join("ca.crt")
    }

    /// Name under which gateways of the control plane with this prefix dial it.
    pub(crate) fn node_name(prefix: &str) -> String {
        format!("{prefix}.us.cp0.sallyport.localhost")
    }

    /// The port without TLS.
    pub(crate) fn plain(&self) -> u16 {
        self.plain
    }

    /// The bytes of a PUT of an entity, for callers who do not send all of them.
    pub(crate) fn raw_put(&self, path: &str, body: &str) -> String {
        format!(
            "PUT /v2/control-planes/{}/core-entities/{path} HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.id,
            self.token,
            body.len()
        )
    }

    /// Runs decK on a past version; `None` if there is no decK.
    #[track_caller]
    pub(crate) fn deck_at(&self, version: u64, dir: &Path, args: &[&str]) -> Option<Finished> {
        let (port, id) = (self.port, &self.id);
        let addr = format!(
            "https://127.0.0.1:{port}/v2/control-planes/{id}/versions/{version}/core-entities"
        );
        self.deck_to(&addr, &self.token, dir, args)
    }

    /// The address that decK gets to write to the draft, or the control plane, of this id.
    pub(crate) fn deck_addr_of(&self, id: &str) -> String {
        let port = self.port;
        format!("https://127.0.0.1:{port}/v2/control-planes/{id}/core-entities")
    }

    /// Runs decK on the draft, or the control plane, of this id; `None` if there is no decK.
    #[track_caller]
    pub(crate) fn deck_on(&self, id: &str, dir: &Path, args: &[&str]) -> Option<Finished> {
        self.deck_to(&self.deck_addr_of(id), &self.token, dir, args)
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
        let what = "all gateways acknowledge the newest configuration";
        eventually(what, soon(), || self.in_sync() == gateways);
    }

    /// Gateways that acknowledged the newest configuration.
    pub(crate) fn in_sync(&self) -> usize {
        self.in_sync_of(&self.id)
    }

    /// The same of another control plane.
    pub(crate) fn in_sync_of(&self, id: &str) -> usize {
        let get = |what| {
            let path = format!("/v2/control-planes/{id}/{what}");
            self.api("GET", &path, &Value::Null).json()
        };
        let wanted = get("expected-config-hash");
        let nodes = get("nodes");
        let nodes = nodes["items"].as_array().unwrap().iter();
        let hash = &wanted["expected_hash"];
        nodes.filter(|node| node["config_hash"] == *hash).count()
    }

    /// The address that decK gets.
    pub(crate) fn deck_addr(&self) -> String {
        self.deck_addr_of(&self.id)
    }

    /// Runs decK on this control plane in `dir`; `None` if there is no decK.
    #[track_caller]
    pub(crate) fn deck(&self, dir: &Path, args: &[&str]) -> Option<Finished> {
        self.deck_as(&self.token, dir, args)
    }

    /// As [`Control::deck`], with any token.
    #[track_caller]
    pub(crate) fn deck_as(&self, token: &str, dir: &Path, args: &[&str]) -> Option<Finished> {
        self.deck_to(&self.deck_addr(), token, dir, args)
    }

    #[track_caller]
    fn deck_to(&self, addr: &str, token: &str, dir: &Path, args: &[&str]) -> Option<Finished> {
        Some(self.deck_launch(addr, token, dir, args)?.run(soon()))
    }

    /// decK, not started yet.
    #[track_caller]
    pub(crate) fn deck_launch(
        &self,
        addr: &str,
        token: &str,
        dir: &Path,
        args: &[&str],
    ) -> Option<Launch> {
        let deck = foreign("deck", "Debian package deck")?;
        let ca = std::fs::read_to_string(self.ca()).unwrap();
        let launch = Program::new(deck)
            .args(args)
            .args(["--kong-addr", addr, "--ca-cert", &ca])
            .args(["--headers", &format!("Authorization:Bearer {token}")])
            .env("HOME", dir)
            .dir(dir);
        Some(launch)
    }
}

fn launch(dir: &Path, port: u16, plain: u16, database: Option<&str>, more: &[String]) -> Program {
    let mut launch = sallyport();
    if let Some(url) = database {
        launch = launch.env("SALLYPORT_DATABASE", url);
    }
    launch = launch
        .args(["control", "--data", "control"])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .args(["--listen-plain", &format!("127.0.0.1:{plain}")])
        .args(more)
        .dir(dir);
    if dir.join(AUDIT_LOG).exists() {
        launch = launch.args(["--audit-log", AUDIT_LOG]);
    }
    if dir.join(TELEMETRY).exists() {
        launch = launch.args(["--telemetry", TELEMETRY]);
    }
    launch.start()
}
