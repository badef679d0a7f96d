//! TLS towards clients and upstreams: certificates by name, two kinds of key, resumption, client
//! certificates; proven with OpenSSL and curl.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use sallyport_testkit::{Echo, Program, eventually, foreign, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{Alone, has_all, sallyport, soon, write};

/// Runs a line of shell in `dir`; both outputs.
fn sh(dir: &Path, line: &str) -> String {
    let done = Program::new("sh").args(["-c", line]).dir(dir).run(soon());
    format!("{}{}", done.stdout, done.stderr)
}

/// A self-signed certificate of this name, made by openssl; its text and that of its key.
#[track_caller]
fn certificate(dir: &Path, name: &str, algorithm: &str) -> [String; 2] {
    let make = format!(
        "openssl req -x509 -newkey {algorithm} -nodes -keyout made.key -out made.crt -days 30 \
         -subj '/CN={name}' -addext 'subjectAltName=DNS:{name}' \
         -addext 'basicConstraints=critical,CA:FALSE'"
    );
    let told = sh(dir, &make);
    let read = |file: &str| {
        let text = std::fs::read_to_string(dir.join(file));
        text.unwrap_or_else(|error| panic!("{error}: {told}"))
    };
    [read("made.crt"), read("made.key")]
}

const RSA: &str = "rsa:2048";
const EC: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

/// An HTTPS request by `openssl s_client`; everything it says, the answer included.
fn ask(dir: &Path, port: u16, options: &str) -> String {
    let request = "GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n";
    let line = format!(
        "printf '{request}' | timeout 20 openssl s_client -ign_eof -connect 127.0.0.1:{port} \
         {options}"
    );
    sh(dir, &line)
}

/// A gateway with a TLS listener.
struct Lab {
    gateway: Alone,
    port: u16,
    dir: TempDir,
}

fn lab(document: &Value, more: &str) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    lab_in(dir, document, more)
}

fn lab_in(dir: TempDir, document: &Value, more: &str) -> Lab {
    let port = free_port();
    let more = format!("{more}\nproxy_listen = 127.0.0.1:0, 127.0.0.1:{port} ssl http2");
    Lab {
        gateway: Alone::start(&document.to_string(), &more),
        port,
        dir,
    }
}

fn document(certificates: Value) -> Value {
    json!({
        "_format_version": "3.0",
        "certificates": certificates,
        "services": [{"name": "s", "host": "127.0.0.1", "port": 9,
                      "routes": [{"name": "r", "paths": ["/up"]}]}],
    })
}

#[test]
fn openssl_gets_the_certificate_of_each_name_and_key() {
    if foreign("openssl", "Debian package openssl").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [rsa, rsa_key] = certificate(dir.path(), "exact.test", RSA);
    let [ec, ec_key] = certificate(dir.path(), "exact.test", EC);
    let [wild, wild_key] = certificate(dir.path(), "wild.test", EC);
    let document = document(json!([
        {"cert": rsa, "key": rsa_key, "cert_alt": ec, "key_alt": ec_key,
         "snis": [{"name": "a.b.exact.test"}]},
        {"cert": wild, "key": wild_key,
         "snis": [{"name": "*.b.exact.test"}, {"name": "www.exact.*"}]},
    ]));
    let lab = lab_in(dir, &document, "");
    let shown = |options: &str| ask(lab.dir.path(), lab.port, options);
    for (name, subject) in [
        ("a.b.exact.test", "CN = exact.test"),
        ("A.B.Exact.Test", "CN = exact.test"),
        ("c.b.exact.test", "CN = wild.test"),
        ("d.c.b.exact.test", "CN = localhost"),
        ("www.exact.org", "CN = wild.test"),
        ("other.test", "CN = localhost"),
    ] {
        let told = shown(&format!("-servername {name}"));
        has_all(&told, &[subject, "HTTP/1.1 404"]);
    }
    has_all(&shown("-noservername"), &["CN = localhost"]);
    let exact = "-servername a.b.exact.test";
    for version in ["-tls1_2", "-tls1_3"] {
        let told = shown(&format!("{exact} {version} -sigalgs RSA-PSS+SHA256"));
        has_all(&told, &["Peer signature type: RSA-PSS"]);
        let told = shown(&format!("{exact} {version} -sigalgs ECDSA+SHA256"));
        has_all(&told, &["Peer signature type: ECDSA"]);
    }
    // whoever knows both gets the one that is cheaper to prove
    has_all(&shown(exact), &["Peer signature type: ECDSA", "TLSv1.3"]);
    has_all(
        &shown(&format!("{exact} -alpn h2,http/1.1")),
        &["ALPN protocol: h2"],
    );
    has_all(
        &shown(&format!("{exact} -alpn http/1.1")),
        &["ALPN protocol: http/1.1"],
    );
}

#[test]
fn openssl_resumes_sessions_by_ticket_and_by_id() {
    if foreign("openssl", "Debian package openssl").is_none() {
        return;
    }
    let check = |settings: &str, rounds: &[&str]| {
        let lab = lab(&document(json!([])), settings);
        for options in rounds {
            let first = ask(
                lab.dir.path(),
                lab.port,
                &format!("{options} -sess_out session.pem"),
            );
            has_all(&first, &["\nNew, TLSv1."]);
            let second = ask(
                lab.dir.path(),
                lab.port,
                &format!("{options} -sess_in session.pem"),
            );
            has_all(&second, &["\nReused, TLSv1.", "HTTP/1.1 404"]);
        }
    };
    let rounds = ["-tls1_3", "-tls1_2", "-tls1_2 -no_ticket"];
    check("", &rounds);
    check("ssl_session_tickets = off", &rounds);
}

#[test]
fn versions_and_suites_are_those_that_settings_allow() {
    if foreign("openssl", "Debian package openssl").is_none() {
        return;
    }
    let modern = lab(&document(json!([])), "ssl_cipher_suite = modern");
    let told = ask(modern.dir.path(), modern.port, "-tls1_2");
    assert!(!told.contains("HTTP/1.1 404"), "{told}");
    has_all(
        &ask(modern.dir.path(), modern.port, "-tls1_3"),
        &["HTTP/1.1 404"],
    );

    let custom = "ssl_cipher_suite = custom\nssl_protocols = TLSv1.2\n\
                  ssl_ciphers = ECDHE-ECDSA-CHACHA20-POLY1305:DHE-RSA-AES128-SHA\n";
    let custom = lab(&document(json!([])), custom);
    let told = ask(custom.dir.path(), custom.port, "");
    has_all(&told, &["TLSv1.2, Cipher is ECDHE-ECDSA-CHACHA20-POLY1305"]);
    custom
        .gateway
        .program
        .wait_for_line("ssl_ciphers.*left out: DHE-RSA-AES128-SHA", soon());
    let told = ask(
        custom.dir.path(),
        custom.port,
        "-cipher ECDHE-ECDSA-AES128-GCM-SHA256",
    );
    assert!(!told.contains("HTTP/1.1 404"), "{told}");
}

#[test]
fn a_new_certificate_is_shown_and_nobody_is_dropped() {
    if foreign("openssl", "Debian package openssl").is_none() {
        return;
    }
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let [first, first_key] = certificate(dir.path(), "first.test", EC);
    let [second, second_key] = certificate(dir.path(), "second.test", RSA);
    let text = |cert: &str, key: &str| {
        let mut document = document(json!([
            {"cert": cert, "key": key, "snis": [{"name": "*"}]},
        ]));
        document["services"][0]["port"] = json!(echo.port());
        document.to_string()
    };
    let port = free_port();
    let more = format!("proxy_listen = 127.0.0.1:{port} ssl");
    let mut program = Alone::launch(dir.path(), &text(&first, &first_key), port, &more).start();
    program.wait_for_line("gateway started", soon());
    let handshake = crate::lab::Handshake {
        port,
        name: "x.test",
        ca: None,
        pair: None,
        alpn: &[],
    };
    let mut open = handshake.open().unwrap();
    let mut served = move || {
        open.write_all(b"GET /up HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            open.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length = length.split_once('\r').unwrap().0.parse().unwrap();
        open.read_exact(&mut vec![0; length]).unwrap();
        head.lines().next().unwrap().to_owned()
    };
    assert_eq!(served(), "http/1.1 200 ok");
    has_all(&ask(dir.path(), port, ""), &["CN = first.test"]);
    write(&dir.path().join("kong.yml"), text(&second, &second_key));
    program.signal("HUP");
    program.wait_for_line("reloaded", soon());
    has_all(&ask(dir.path(), port, ""), &["CN = second.test"]);
    assert_eq!(served(), "http/1.1 200 ok", "the old connection goes on");

    // a key that does not belong to it changes nothing
    write(&dir.path().join("kong.yml"), text(&second, &first_key));
    program.signal("HUP");
    let line = "certificates\\[0\\].*key: the private key does not belong to the certificate";
    program.wait_for_line(line, soon());
    has_all(&ask(dir.path(), port, ""), &["CN = second.test"]);
    let check = sallyport().args(["gateway", "--check", "-c", "kong.conf"]);
    let check = check.dir(dir.path()).run(soon());
    assert!(!check.status.success());
    has_all(
        &check.stderr,
        &[
            "certificates[0] (",
            ").key: the private key does not belong",
        ],
    );
}

/// An authority with one below it, and certificates that the latter issued.
struct Authorities {
    root: String,
    /// Certificate with that of the lower authority, and key.
    server: [String; 2],
    client: [String; 2],
}

fn authorities() -> Authorities {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = |name: &str, authority: bool| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    };
    let (root_key, middle_key) = (key(), key());
    let root_params = params("root.test", true);
    let root = root_params.self_signed(&root_key).unwrap();
    let root_issuer = Issuer::new(root_params, root_key);
    let middle_params = params("middle.test", true);
    let middle = middle_params.signed_by(&middle_key, &root_issuer).unwrap();
    let middle_issuer = Issuer::new(middle_params, middle_key);
    let leaf = |name: &str| {
        let key = key();
        let leaf = params(name, false).signed_by(&key, &middle_issuer).unwrap();
        [
            format!("{}{}", leaf.pem(), middle.pem()),
            key.serialize_pem(),
        ]
    };
    Authorities {
        root: root.pem(),
        server: leaf("localhost"),
        client: leaf("client.test"),
    }
}

/// `openssl s_server` that serves a page only to clients with a certificate of the authority.
fn demanding_server(dir: &Path, authorities: &Authorities) -> (Program, u16) {
    write(&dir.join("root.crt"), &authorities.root);
    write(&dir.join("server.crt"), &authorities.server[0]);
    write(&dir.join("server.key"), &authorities.server[1]);
    let port = free_port();
    let line = format!(
        "exec openssl s_server -accept 127.0.0.1:{port} -www -Verify 3 -verify_return_error \
         -CAfile root.crt -cert_chain server.crt -cert server.crt -key server.key"
    );
    let server = Program::new("sh").args(["-c", &line]).dir(dir).start();
    eventually("s_server listens", soon(), || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (server, port)
}

#[test]
fn an_upstream_that_wants_a_certificate_gets_the_right_one() {
    if foreign("openssl", "Debian package openssl").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authorities = authorities();
    let (_server, port) = demanding_server(dir.path(), &authorities);
    let [cert, key] = &authorities.client;
    let [stranger, stranger_key] = certificate(dir.path(), "stranger.test", EC);
    let ids = [
        "0dc6f45b-8f8d-40d2-a504-473544ee190b",
        "7f145bf9-0dce-4f91-98eb-debbce4b9f6b",
        "1a0aa4bb-8f8d-40d2-a504-473544ee190b",
    ];
    let service = |name: &str, more: Value| {
        let mut service = json!({
            "name": name, "protocol": "https", "host": "localhost", "port": port, "retries": 0,
            "routes": [{"name": name, "paths": [format!("/{name}")]}],
        });
        for (field, value) in more.as_object().unwrap() {
            service[field] = value.clone();
        }
        service
    };
    let other = sallyport_runtime::certs::LocalCa::create("other", 30).unwrap();
    let own = json!({"id": ids[0]});
    let verified = |depth: Value, ca: &str| {
        json!({"client_certificate": own, "tls_verify": true, "tls_verify_depth": depth,
               "ca_certificates": [ca]})
    };
    let document = json!({
        "_format_version": "3.0",
        "certificates": [{"id": ids[0], "cert": cert, "key": key},
                         {"id": ids[1], "cert": stranger, "key": stranger_key}],
        "ca_certificates": [{"id": ids[0], "cert": authorities.root},
                            {"id": ids[2], "cert": other.pem().cert}],
        "upstreams": [{"name": "u.test", "client_certificate": {"id": ids[0]},
                       "targets": [{"target": format!("127.0.0.1:{port}")}]}],
        "services": [
            service("none", json!({})),
            service("own", json!({"client_certificate": own})),
            service("stranger", json!({"client_certificate": {"id": ids[1]}})),
            service("upstream", json!({"host": "u.test"})),
            service("ours-first", json!({"host": "u.test", "client_certificate": {"id": ids[1]}})),
            service("trusts", verified(json!(1), ids[0])),
            service("short", verified(json!(0), ids[0])),
            service("trusts-another", verified(Value::Null, ids[2])),
        ],
    });
    let gateway = Alone::start(&document.to_string(), "");
    let answer = |path: &str| gateway.get(path).send().unwrap();
    assert_eq!(answer("/none").status, 502);
    assert_eq!(answer("/stranger").status, 502);
    for path in ["/own", "/upstream", "/trusts"] {
        let answer = answer(path);
        assert_eq!(answer.status, 200, "{path}");
        let page = String::from_utf8_lossy(&answer.body).into_owned();
        has_all(&page, &["CN=client.test", "TLSv1.3"]);
    }
    assert_eq!(
        answer("/ours-first").status,
        502,
        "the service's own comes first"
    );
    assert_eq!(answer("/short").status, 502);
    gateway
        .program
        .wait_for_line("more than 0 certificates stand between", soon());
    assert_eq!(answer("/trusts-another").status, 502);
    gateway
        .program
        .wait_for_line("which is not trusted here", soon());
}

#[test]
fn the_settings_own_certificate_is_shown_where_nothing_else_is() {
    if foreign("openssl", "Debian package openssl").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let authorities = authorities();
    let (_server, port) = demanding_server(dir.path(), &authorities);
    let path = |name: &str, text: &str| -> PathBuf {
        write(&dir.path().join(name), text);
        dir.path().join(name)
    };
    let cert = path("client.crt", &authorities.client[0]);
    let key = path("client.key", &authorities.client[1]);
    let document = json!({
        "_format_version": "3.0",
        "services": [{"name": "s", "url": format!("https://localhost:{port}"), "retries": 0,
                      "routes": [{"name": "r", "paths": ["/"]}]}],
    });
    let settings = format!(
        "client_ssl = on\nclient_ssl_cert = {}\nclient_ssl_cert_key = {}\n",
        cert.display(),
        key.display()
    );
    let gateway = Alone::start(&document.to_string(), &settings);
    let answer = gateway.get("/").send().unwrap();
    assert_eq!(answer.status, 200);
    has_all(&String::from_utf8_lossy(&answer.body), &["CN=client.test"]);

    // verification that only the nginx directive asks for
    let strict = format!("{settings}nginx_proxy_proxy_ssl_verify = on\n");
    let gateway = Alone::start(&document.to_string(), &strict);
    assert_eq!(gateway.get("/").send().unwrap().status, 502);
    let trusting = format!(
        "{strict}lua_ssl_trusted_certificate = {}\n",
        dir.path().join("root.crt").display()
    );
    let gateway = Alone::start(&document.to_string(), &trusting);
    assert_eq!(gateway.get("/").send().unwrap().status, 200);
}
