//! The doctor and a real control plane.

use std::path::Path;

use sallyport_testkit::http::request;
use sallyport_testkit::{Deadline, Finished, Program, foreign, free_port};
use serde_json::{Value, json};

use crate::network::{FAR, Network};
use crate::{file, run, sallyport};

struct Control {
    program: Program,
    port: u16,
    plain: u16,
    id: String,
    token: String,
}

impl Control {
    #[track_caller]
    fn start(dir: &Path) -> Control {
        let (port, plain) = (free_port(), free_port());
        let program = sallyport(&["control", "--data"])
            .arg(dir)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--listen-plain", &format!("127.0.0.1:{plain}")])
            .start();
        let ready =
            program.wait_for_line(r"ready control_plane=([0-9a-f-]{36})", Deadline::secs(60));
        let token = std::fs::read_to_string(dir.join("token"))
            .unwrap()
            .trim()
            .to_owned();
        Control {
            program,
            port,
            plain,
            id: ready.groups[0].clone(),
            token,
        }
    }

    #[track_caller]
    fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = format!(
            "http://127.0.0.1:{}/v2/control-planes/{}{path}",
            self.plain, self.id
        );
        let request =
            request(method, url).header("Authorization", format!("Bearer {}", self.token));
        let request = if body.is_null() {
            request
        } else {
            request.json(body)
        };
        let answer = request.send().unwrap();
        assert!(answer.status < 300, "{path}: {}", answer.text());
        answer.json()
    }
}

fn row(done: &Finished, id: &str) -> Value {
    let json: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    let rows = json["rows"].as_array().unwrap();
    rows.iter()
        .find(|row| row["id"] == id)
        .unwrap_or_else(|| panic!("{done:?}"))
        .clone()
}

#[track_caller]
fn check(done: &Finished, status: &str, part: &str) {
    let row = row(done, "config_sync");
    assert_eq!(row["status"], status, "{row:#}");
    assert!(row.to_string().contains(part), "no {part:?} in {row:#}");
}

#[test]
fn a_gateways_settings_are_proven_before_it_starts() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("control");
    let control = Control::start(&home);
    let certs = dir.path().join("certs");
    run(&["certs", "--out", certs.to_str().unwrap()]).success();
    let shown = control.api("GET", "", &Value::Null);
    let endpoint = shown["config"]["control_plane_endpoint"].as_str().unwrap();
    let name = endpoint
        .strip_prefix("https://")
        .unwrap()
        .split(':')
        .next()
        .unwrap();
    let conf = |ca: &Path, name: &str, port: u16| {
        let text = format!(
            "role = data_plane\ndatabase = off\nprefix = {prefix}\nproxy_listen = 127.0.0.1:0\n\
             status_listen = off\nadmin_listen = off\ncluster_mtls = pki\n\
             cluster_control_plane = 127.0.0.1:{port}\ncluster_server_name = {name}\n\
             cluster_cert = {certs}/cluster.crt\ncluster_cert_key = {certs}/cluster.key\n\
             lua_ssl_trusted_certificate = {ca}\n",
            prefix = dir.path().join("prefix").display(),
            certs = certs.display(),
            ca = ca.display(),
        )
        .replace("127.0.0.1:0\n", "127.0.0.1:8000\n");
        file(&dir, "kong.conf", &text)
    };
    let doctor = |conf: &str| run(&["doctor", "--conf", conf, "--json", "--timeout", "10"]);

    let path = conf(&home.join("ca.crt"), name, control.port);
    check(&doctor(&path), "wrong", "does not know our certificate");
    let cert = std::fs::read_to_string(certs.join("cluster.crt")).unwrap();
    control.api("POST", "/dp-client-certificates", &json!({"cert": cert}));
    check(&doctor(&path), "open", "opens the WebSocket");
    // The doctor is no gateway, and leaves none behind.
    let nodes = control.api("GET", "/nodes", &Value::Null);
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(0), "{nodes}");

    let path = conf(&certs.join("cluster.crt"), name, control.port);
    check(&doctor(&path), "intercepted", "Sallyport local CA");
    let path = conf(
        &home.join("ca.crt"),
        "else.us.cp0.sallyport.localhost",
        control.port,
    );
    check(&doctor(&path), "wrong", "closes the connection");
    let path = conf(&home.join("ca.crt"), "elsewhere.test", control.port);
    check(&doctor(&path), "wrong", "the certificate is for");
    let path = conf(&home.join("ca.crt"), name, free_port());
    check(&doctor(&path), "closed", "nothing listens");

    let surface = run(&["doctor", "--surface"]);
    let listens = format!("{}/tcp", control.port);
    assert!(surface.stdout.contains(&listens), "{surface:?}");
    assert!(surface.stdout.contains("loopback only"), "{surface:?}");
    drop(control.program);
}

/// Both links by the contract's names and ports, over a network that routes.
#[test]
fn both_links_of_a_gateway_are_proven_by_name() {
    let Some(network) = Network::new("c", "") else {
        return;
    };
    let Some(curl) = foreign("curl", "Debian package curl") else {
        return;
    };
    let program = Path::new(env!("CARGO_BIN_EXE_sallyport"));
    let home = network.path("control");
    let address = format!("{FAR}:443");
    let [data, certs] = [home.clone(), network.path("certs")].map(|it| it.display().to_string());
    let args = [
        "control",
        "--data",
        &data,
        "--listen",
        &address,
        "--listen-plain",
        "127.0.0.1:8080",
    ];
    let place = ["--base-domain", "sally.test", "--geo", "eu"];
    let control = network
        .program("far", program, &[&args[..], &place].concat())
        .start();
    let ready = control.wait_for_line(r"ready control_plane=([0-9a-f-]{36})", Deadline::secs(60));
    let url = format!(
        "http://127.0.0.1:8080/v2/control-planes/{}",
        ready.groups[0]
    );
    let token = std::fs::read_to_string(home.join("token")).unwrap();
    let token = format!("Authorization: Bearer {}", token.trim());
    let ask = |path: &str, more: &[&str]| -> Value {
        let url = format!("{url}{path}");
        let args = [&["-sf", "-H", &token, &url][..], more].concat();
        let done = network
            .program("far", &curl, &args)
            .run(Deadline::secs(30))
            .success();
        serde_json::from_str(&done.stdout).unwrap()
    };
    run(&["certs", "--out", &certs]).success();
    let cert = std::fs::read_to_string(network.path("certs/cluster.crt")).unwrap();
    let body = json!({"cert": cert}).to_string();
    ask(
        "/dp-client-certificates",
        &["-H", "Content-Type: application/json", "-d", &body],
    );
    let shown = ask("", &[]);
    let endpoint = shown["config"]["control_plane_endpoint"].as_str().unwrap();
    let prefix = endpoint
        .strip_prefix("https://")
        .unwrap()
        .split('.')
        .next()
        .unwrap();
    let names = format!("{FAR} {prefix}.eu.cp0.sally.test {prefix}.eu.tp0.sally.test\n");
    std::fs::write(network.path("hosts"), names).unwrap();
    let conf = format!(
        "role = data_plane\ndatabase = off\nprefix = {dir}/prefix\nproxy_listen = 127.0.0.1:8000\n\
         status_listen = off\nadmin_listen = off\ncluster_mtls = pki\n\
         cluster_control_plane = {prefix}.eu.cp0.sally.test:443\n\
         cluster_server_name = {prefix}.eu.cp0.sally.test\n\
         cluster_cert = {certs}/cluster.crt\ncluster_cert_key = {certs}/cluster.key\n\
         lua_ssl_trusted_certificate = {data}/ca.crt\n",
        dir = network.dir.path().display()
    );
    std::fs::write(network.path("kong.conf"), conf).unwrap();
    let path = network.path("kong.conf").display().to_string();
    let args = ["doctor", "--conf", &path, "--json", "--timeout", "10"];
    let done = network
        .program("near", program, &args)
        .run(Deadline::secs(90));
    for id in ["config_sync", "telemetry"] {
        let row = row(&done, id);
        assert_eq!(row["status"], "open", "{row:#}");
        assert!(
            row["seen"].to_string().contains("opens the WebSocket"),
            "{row:#}"
        );
    }
}
