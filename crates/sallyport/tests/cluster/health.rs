//! Health of a node beside what it asks: a web server, a mail relay, other nodes without ICMP.

use std::net::TcpListener;
use std::path::Path;

use sallyport_testkit::{Deadline, Program, eventually, foreign, free_port, free_ports};
use serde_json::Value;

use crate::lab::{KEY, Lab, patience, sallyport, sh};

/// One node on loopback with this section of its settings.
struct Node {
    dir: tempfile::TempDir,
    health: u16,
    program: Program,
}

impl Node {
    #[track_caller]
    fn start(section: &str) -> Node {
        Node::start_in(tempfile::tempdir().unwrap(), section)
    }

    #[track_caller]
    fn start_in(dir: tempfile::TempDir, section: &str) -> Node {
        let [control, health] = free_ports();
        let file = dir.path().join("node.toml");
        let text = format!(
            "[node]\nname = \"n1\"\n[control_planes]\nlisten = \"127.0.0.1:{control}\"\n\
             [healthcheck]\nlisten = \"127.0.0.1:{health}\"\nkey = \"{KEY}\"\n{section}"
        );
        std::fs::write(&file, text).unwrap();
        let node = |verb| {
            Program::new(sallyport()).args(["node", "--config", file.to_str().unwrap(), verb])
        };
        node("init").run(patience()).success();
        let program = node("run").start();
        program.wait_for_line("this node serves", patience());
        Node {
            dir,
            health,
            program,
        }
    }

    /// What curl says to these arguments; the address follows.
    fn curl(&self, args: &str, path: &str) -> String {
        let port = self.health;
        sh(&format!(
            "curl -s -m 30 -u api_keys_health:{KEY} {args} 127.0.0.1:{port}{path} || true"
        ))
    }

    fn status(&self, path: &str) -> String {
        self.curl("-o /dev/null -w '%{http_code}'", path)
    }

    #[track_caller]
    fn json(&self, path: &str) -> Value {
        let text = self.curl("", path);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[track_caller]
    fn is(&self, path: &str, status: &str) {
        eventually(&format!("{path} is {status}"), patience(), || {
            self.status(path) == status
        });
    }
}

#[test]
fn the_way_out_and_the_mail_relay_are_asked_for_real() {
    let needed = [
        ("python3", "Debian package python3"),
        ("aiosmtpd", "PyPI package aiosmtpd"),
        ("curl", "Debian package curl"),
    ];
    if needed
        .iter()
        .any(|(program, package)| foreign(program, package).is_none())
    {
        return;
    }
    let [web, mail] = free_ports();
    let node = Node::start(&format!(
        "internet = \"http://127.0.0.1:{web}/\"\nsmtp = \"127.0.0.1:{mail}\"\n"
    ));
    node.is("/status/internet", "520");
    node.is("/status/email", "520");

    let served = node.dir.path().join("served");
    std::fs::create_dir(&served).unwrap();
    let mut http = Program::new("python3")
        .args(["-m", "http.server", "--bind", "127.0.0.1"])
        .arg(web.to_string())
        .dir(&served)
        .start();
    let listen = format!("127.0.0.1:{mail}");
    let mut smtp = Program::new("aiosmtpd").args(["-n", "-l", &listen]).start();
    node.is("/status/internet", "204");
    node.is("/status/email", "204");
    let told = node.json("/health");
    assert_eq!(told["node"], "n1", "{told:#}");
    assert_eq!(told["serving"], true, "{told:#}");
    for (check, words) in [
        ("internet", "answers 200"),
        ("email", "greets"),
        ("db", "a query succeeded"),
        ("services", "the control plane runs"),
        ("disk", "is used to"),
        ("memory", "MiB available"),
    ] {
        let detail = told["checks"][check]["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words), "{check}: {told:#}");
    }

    // A page that is not there, a server that is gone, a relay that refuses.
    http.kill9();
    smtp.kill9();
    let refuses = TcpListener::bind(("127.0.0.1", mail)).unwrap();
    let relay = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = refuses.accept().unwrap();
        _ = stream.write_all(b"554 no service here\r\n");
    });
    assert_eq!(node.status("/status/email"), "520");
    relay.join().unwrap();
    node.is("/status/internet", "520");
    let told = node.json("/health");
    let detail = told["checks"]["internet"]["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("127.0.0.1:{web}")), "{told:#}");
}

#[test]
fn a_sample_a_minute_is_kept_and_told_by_day() {
    let Some(_) = foreign("curl", "Debian package curl") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let past = dir.path().join("data/health");
    std::fs::create_dir_all(&past).unwrap();
    // The last line is of a machine that lost its power.
    let lines = "{\"node\":\"n1\",\"cpu_percent\":7}\n{\"node\":\"n1\",\"cpu_percent\":8}\n{\"no";
    std::fs::write(past.join("2020-02-29.jsonl"), lines).unwrap();
    let node = Node::start_in(dir, "");
    let old = node.json("/history?day=2020-02-29");
    let found: Vec<_> = old["samples"].as_array().unwrap().iter().collect();
    assert_eq!(found.len(), 2, "{old:#}");
    assert_eq!(found[1]["cpu_percent"], 8);
    assert_eq!(
        node.json("/history?day=2020-01-01")["samples"],
        serde_json::json!([])
    );
    for bad in ["yesterday", "2020-02-30", "../../etc/passwd"] {
        assert_eq!(node.status(&format!("/history?day={bad}")), "400", "{bad}");
    }
    let told = node.json("/history?day=today-ish");
    assert!(
        told["message"].as_str().unwrap().contains("is no day"),
        "{told:#}"
    );
    let mut newest = Value::Null;
    eventually("the first minute is kept", Deadline::secs(240), || {
        // asked too often it answers nothing
        let told: Value = serde_json::from_str(&node.curl("", "/history")).unwrap_or_default();
        newest = told["samples"][0].clone();
        newest["node"] == "n1"
    });
    assert!(newest["time"].as_str().is_some(), "{newest:#}");
    assert_eq!(newest["checks"]["db"]["verdict"], "ok", "{newest:#}");
    // What was there from long ago went with the first sample.
    let gone = node.json("/history?day=2020-02-29");
    assert_eq!(gone["samples"], serde_json::json!([]));
}

/// A certificate for 127.0.0.1.
fn certificate(dir: &Path, name: &str) {
    sh(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name} \
         -addext subjectAltName=IP:127.0.0.1 -keyout {0}/new.key -out {0}/new.crt 2>/dev/null
         mv {0}/new.key {0}/health.key; mv {0}/new.crt {0}/health.crt",
        dir.display()
    ));
}

#[test]
fn health_is_told_over_tls_too() {
    for (program, package) in [("openssl", "openssl"), ("curl", "curl")] {
        if foreign(program, &format!("Debian package {package}")).is_none() {
            return;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path(), "first");
    let settings = "certificate = \"health.crt\"\ncertificate_key = \"health.key\"\n";
    let node = Node::start_in(dir, settings);
    let port = node.health;
    let authority = node.dir.path().join("health.crt");
    let secure = |path: &str| {
        sh(&format!(
            "curl -s -m 30 --cacert {} -u api_keys_health:{KEY} -w ' %{{http_code}}' \
             https://127.0.0.1:{port}{path} || true",
            authority.display()
        ))
    };
    assert_eq!(secure("/testall"), "OK 200");
    assert_eq!(secure("/status/db"), " 204");
    assert_eq!(node.status("/testall"), "200");
    // What is neither ends for itself.
    sh(&format!(
        "printf '\\026\\003\\001garbage' | timeout 20 curl -s -m 10 telnet://127.0.0.1:{port} || true"
    ));
    assert_eq!(secure("/testall"), "OK 200");

    // Another certificate in its place holds soon, a broken one never.
    certificate(node.dir.path(), "second");
    node.program
        .wait_for_line("certificate of health exchanged", patience());
    assert_eq!(secure("/testall"), "OK 200");
    let kept = std::fs::read(&authority).unwrap();
    std::fs::write(&authority, "no certificate").unwrap();
    node.program
        .wait_for_line("the new certificate of health cannot be used", patience());
    let trusted = node.dir.path().join("kept.crt");
    std::fs::write(&trusted, kept).unwrap();
    let still = sh(&format!(
        "curl -s -m 30 --cacert {} https://127.0.0.1:{port}/testall",
        trusted.display()
    ));
    assert_eq!(still, "OK");

    // A start with a broken one says which setting it is.
    let file = node.dir.path().join("node.toml");
    drop(node.program);
    let text = std::fs::read_to_string(&file).unwrap();
    let free = format!("127.0.0.1:{}", free_port());
    std::fs::write(&file, text.replace(&format!("127.0.0.1:{port}"), &free)).unwrap();
    let refused = Program::new(sallyport())
        .args(["node", "--config", file.to_str().unwrap(), "run"])
        .run(patience());
    assert!(
        refused.stderr.contains("healthcheck.certificate"),
        "{refused:?}"
    );
}

#[test]
fn without_the_right_to_icmp_nodes_ask_by_tcp_and_say_so() {
    let Some(_) = foreign("setpriv", "Debian package util-linux") else {
        return;
    };
    let Some(mut lab) = Lab::new("i") else { return };
    lab.whole();
    lab.health_is("n1", "/status/network", "204");
    let detail = |lab: &Lab| {
        let url = format!("http://{}:9110/health", lab.address("n1"));
        let told = lab.on("nb", &format!("curl -s -u api_keys_health:{KEY} {url}"));
        let told: Value = serde_json::from_str(&told).unwrap_or_default();
        let detail = &told["checks"]["network"]["detail"];
        detail.as_str().unwrap_or_default().to_owned()
    };
    eventually("it is told how", patience(), || {
        detail(&lab).contains("n2: answers ICMP echo")
    });

    // The same node without the right, raw or unprivileged.
    lab.running.get_mut("n1").unwrap().kill9();
    lab.on("n1", "echo 1 0 >/proc/sys/net/ipv4/ping_group_range");
    let file = lab.path("n1.toml");
    let program = lab
        .program("n1", "setpriv")
        .args(["--bounding-set=-net_raw", "--inh-caps=-net_raw"])
        .arg(sallyport())
        .args(["node", "--config", file.to_str().unwrap(), "run"])
        .start();
    program.wait_for_line("node started", patience());
    lab.running.insert("n1", program);
    lab.health_is("n1", "/status/network", "204");
    eventually("it says that it asks by TCP", patience(), || {
        detail(&lab).contains("n2: answers TCP (this user may not send ICMP)")
    });
    lab.running.get_mut("n3").unwrap().kill9();
    lab.health_is("n1", "/status/network", "520");
    assert!(detail(&lab).contains("n3: no TCP"), "{}", detail(&lab));
}
