//! `sallyport gateway -c kong.conf` alone: settings, listeners, start and end.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use sallyport_testkit::http::get;
use sallyport_testkit::{Deadline, Echo, Program, eventually, foreign, free_port, free_ports};

use crate::lab::{Alone, Handshake, has_all, sallyport, soon, write};

fn declarative(echo: &Echo) -> String {
    format!(
        "_format_version: '3.0'\n\
         services:\n\
         - name: echo\n  \
           url: {}/base\n  \
           routes:\n  \
           - {{name: echo, paths: [/echo]}}\n  \
           - {{name: kept, paths: [/kept], strip_path: false, preserve_host: true}}\n  \
           - {{name: posts, paths: ['~/posts/\\d+$'], methods: [POST], hosts: [posts.example]}}\n",
        echo.url()
    )
}

#[test]
fn serves_a_declarative_file_without_a_control_plane() {
    let echo = Echo::start();
    let gateway = Alone::start(&declarative(&echo), "");
    let answer = gateway
        .get("/echo/orders?id=7")
        .header("X-Own", "kept")
        .send()
        .unwrap();
    assert_eq!(answer.status, 200);
    let seen = answer.json();
    assert_eq!(seen["path"], "/base/orders?id=7");
    let port = gateway.port.to_string();
    for (name, value) in [
        ("host", format!("127.0.0.1:{}", echo.port()).as_str()),
        ("x-own", "kept"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "127.0.0.1"),
        ("x-forwarded-port", port.as_str()),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-path", "/echo/orders"),
        ("x-forwarded-prefix", "/echo"),
        ("x-real-ip", "127.0.0.1"),
        ("via", "1.1 kong/3.9.1"),
    ] {
        assert_eq!(seen["headers"][name][0], value, "{name} in {seen:#}");
    }
    assert_eq!(
        seen["headers"]["connection"][0], "keep-alive",
        "the client's own is not passed on"
    );
    for name in ["x-kong-upstream-latency", "x-kong-proxy-latency"] {
        let latency = answer.header(name).map(str::parse::<u32>);
        assert!(matches!(latency, Some(Ok(_))), "{name}: {latency:?}");
    }
    assert_eq!(answer.header("via"), Some("1.1 kong/3.9.1"));
    let id = answer.header("x-kong-request-id").unwrap();
    assert_eq!(seen["headers"]["x-kong-request-id"][0], id);

    let kept = gateway
        .get("/kept")
        .header("Host", "shop.example:99")
        .send()
        .unwrap()
        .json();
    assert_eq!(kept["path"], "/base/kept");
    assert_eq!(kept["headers"]["host"][0], "shop.example:99");
}

#[test]
fn what_is_for_one_hop_stays_on_it() {
    let echo = Echo::start();
    let gateway = Alone::start(&declarative(&echo), "nginx_main_worker_processes = 1");
    let seen = gateway
        .get("/echo")
        .header("Connection", "close, X-Hop")
        .header("X-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("TE", "gzip")
        .header("Proxy-Connection", "keep-alive")
        .header("X-End", "1")
        .send()
        .unwrap()
        .json();
    let headers = &seen["headers"];
    for name in ["x-hop", "keep-alive", "te", "proxy-connection"] {
        assert!(headers[name].is_null(), "{name}: {headers:#}");
    }
    assert_eq!(headers["x-end"][0], "1");
    // many requests, one connection to the upstream, whatever the clients do
    for _ in 0..5 {
        assert_eq!(gateway.get("/echo").send().unwrap().status, 200);
    }
    assert_eq!(echo.connections(), 1);
}

#[test]
fn what_matches_no_route_is_told_so_in_kongs_words() {
    let echo = Echo::start();
    let gateway = Alone::start(&declarative(&echo), "");
    let none = gateway.get("/nowhere").send().unwrap();
    assert_eq!(none.status, 404);
    assert_eq!(
        none.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(none.json()["message"], "no Route matched with those values");
    assert!(none.header("x-kong-response-latency").is_some());
    // method, host and regular expression all have to fit
    let url = format!("http://127.0.0.1:{}/posts/12", gateway.port);
    let post = sallyport_testkit::http::request("POST", url).header("Host", "posts.example");
    assert_eq!(post.send().unwrap().status, 200);
    let check = |path: &str| {
        gateway
            .get(path)
            .header("Host", "posts.example")
            .send()
            .unwrap()
    };
    assert_eq!(check("/posts/12").status, 404);
    assert_eq!(echo.count(), 1);
}

#[test]
fn an_upstream_that_is_gone_is_a_bad_gateway() {
    let echo = Echo::start();
    let gateway = Alone::start(&declarative(&echo), "");
    let addr = echo.addr();
    drop(echo);
    let told = "An invalid response was received from the upstream server";
    let refused = gateway.get("/echo").header("Accept", "application/json");
    let refused = refused.send().unwrap();
    assert_eq!(refused.status, 502);
    assert_eq!(refused.json()["message"], told);
    // whoever accepts nothing in particular gets Kong's default, plain text
    let refused = gateway.get("/echo").send().unwrap();
    assert_eq!(refused.status, 502);
    let kind = refused.header("content-type");
    assert_eq!(kind, Some("text/plain; charset=utf-8"));
    assert!(refused.text().starts_with(told), "{}", refused.text());
    let _back = Echo::start_at(addr);
    eventually("the upstream is used again", soon(), || {
        gateway
            .get("/echo")
            .send()
            .is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn the_environment_overrules_the_file() {
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let [in_file, in_environment] = free_ports();
    let program = Alone::launch(dir.path(), "{}", in_file, "headers = latency_tokens")
        .env("KONG_PROXY_LISTEN", format!("127.0.0.1:{in_environment}"))
        .env("KONG_DECLARATIVE_CONFIG", "")
        .env("KONG_DECLARATIVE_CONFIG_STRING", declarative(&echo))
        .env("KONG_HEADERS", "off")
        .start();
    program.wait_for_line("gateway started", soon());
    let answer = get(format!("http://127.0.0.1:{in_environment}/echo"))
        .send()
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-kong-proxy-latency"), None);
    assert!(
        get(format!("http://127.0.0.1:{in_file}/echo"))
            .send()
            .is_err()
    );
}

#[test]
fn listeners_take_kongs_flags() {
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let [plain, secure, http2, status] = free_ports();
    let six = TcpListener::bind("[::1]:0").map(|listener| listener.local_addr().unwrap());
    let mut listen = format!(
        "127.0.0.1:{plain} reuseport backlog=512, 127.0.0.1:{secure} http2 ssl, \
         127.0.0.1:{http2} http2"
    );
    if let Ok(six) = six {
        listen += &format!(", {six} ipv6only=on so_keepalive=on");
    }
    let program = Alone::launch(dir.path(), &declarative(&echo), 0, "")
        .env("KONG_PROXY_LISTEN", listen)
        .env("KONG_STATUS_LISTEN", format!("127.0.0.1:{status}"))
        .start();
    program.wait_for_line("gateway started", soon());

    assert_eq!(
        get(format!("http://127.0.0.1:{plain}/echo"))
            .send()
            .unwrap()
            .status,
        200
    );
    if let Ok(six) = six {
        let seen = get(format!("http://{six}/echo")).send().unwrap().json();
        assert_eq!(seen["headers"]["x-real-ip"][0], "::1");
    }
    for (offered, chosen) in [("http/1.1", "http/1.1"), ("h2", "h2")] {
        let alpn = &[offered];
        let handshake = Handshake {
            port: secure,
            name: "localhost",
            ca: None,
            pair: None,
            alpn,
        };
        let mut stream = handshake.open().unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(chosen.as_bytes()));
        if chosen == "http/1.1" {
            let request = get(format!("https://127.0.0.1:{secure}/echo"));
            let seen = request.send_over(&mut stream).unwrap().json();
            assert_eq!(seen["headers"]["x-forwarded-proto"][0], "https");
        }
    }
    let ready = get(format!("http://127.0.0.1:{status}/status/ready"))
        .send()
        .unwrap();
    assert_eq!(
        (ready.status, ready.json()["message"].as_str()),
        (200, Some("ready"))
    );
    let shown = get(format!("http://127.0.0.1:{status}/status"))
        .send()
        .unwrap()
        .json();
    assert_eq!(shown["configuration_hash"].as_str().unwrap().len(), 32);
    eventually("requests are counted", soon(), || {
        let shown = get(format!("http://127.0.0.1:{status}/status"))
            .send()
            .unwrap()
            .json();
        shown["server"]["total_requests"].as_u64() >= Some(2)
    });

    let Some(curl) = foreign("curl", "Debian package curl") else {
        return;
    };
    let speaks = |args: &[&str]| {
        let shown = [
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code}",
        ];
        Program::new(&curl)
            .args(shown)
            .args(args)
            .run(soon())
            .success()
            .stdout
    };
    assert_eq!(
        speaks(&["-k", "--http2", &format!("https://127.0.0.1:{secure}/echo")]),
        "2 200"
    );
    assert_eq!(
        speaks(&[
            "-k",
            "--http1.1",
            &format!("https://127.0.0.1:{secure}/echo")
        ]),
        "1.1 200"
    );
    let prior = format!("http://127.0.0.1:{http2}/echo");
    assert_eq!(speaks(&["--http2-prior-knowledge", &prior]), "2 200");
}

#[test]
fn a_bad_kong_conf_lists_every_problem_before_anything_is_bound() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    // If it bound anything, the port in use would be what it complains about.
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let conf = format!(
        "prefix = relative/dir\n\
         role = data_plane\n\
         database = postgres\n\
         proxy_listen = 127.0.0.1:{port}, 127.0.0.1:{port} sssl, nonsense, 127.0.0.1:1 http3\n\
         status_listen = 127.0.0.1:99999\n\
         log_level = loud\n\
         nginx_main_worker_processes = many\n\
         plugins = bundled, no-such-plugin\n\
         cluster_control_plane = nowhere\n\
         cluster_cert_key = -----BEGIN PRIVATE KEY----- secret\n\
         prox_listen = typo\n\
         this line is broken\n"
    );
    let file = dir.path().join("kong.conf");
    write(&file, conf);
    let done = sallyport()
        .args(["gateway", "-c"])
        .arg(&file)
        .env("KONG_UPSTREAM_KEEPALIVE_POOL_SIZE", "-3")
        .run(soon());
    assert_eq!(done.status.code(), Some(1));
    let line_of = |key: &str| {
        let found = done
            .stderr
            .lines()
            .find(|line| line.contains(&format!(": {key}")));
        found
            .unwrap_or_else(|| panic!("{key} is not named:\n{}", done.stderr))
            .to_owned()
    };
    for (key, parts) in [
        ("prefix", ["line 1:", "absolute"]),
        ("database", ["line 3:", "must be off"]),
        ("proxy_listen", ["line 4:", "\"sssl\" is not a flag"]),
        ("status_listen", ["line 5:", "99999"]),
        ("log_level", ["line 6:", "notice, debug"]),
        ("nginx_main_worker_processes", ["line 7:", "auto"]),
        ("plugins", ["line 8:", "\"no-such-plugin\""]),
        ("cluster_control_plane", ["line 9:", "host:port"]),
        ("cluster_cert:", ["default:", "is needed"]),
        ("this", ["line 12:", "name = value"]),
        (
            "upstream_keepalive_pool_size",
            ["KONG_UPSTREAM_KEEPALIVE_POOL_SIZE", "0 to"],
        ),
    ] {
        has_all(&line_of(key), &parts);
    }
    has_all(
        &done.stderr,
        &[
            "\"nonsense\" is not address:port",
            "http3",
            "prox_listen",
            "did you mean proxy_listen",
        ],
    );
    assert!(
        !done.stderr.contains("secret"),
        "a key is shown:\n{}",
        done.stderr
    );
    assert!(!done.stderr.contains("in use"), "{}", done.stderr);
    drop(taken);
}

#[test]
fn a_bad_declarative_file_lists_every_problem_before_anything_is_bound() {
    let document = r#"
_format_version: "3.0"
services:
- {name: orders, host: 127.0.0.1, port: 70000, retries: "five", colour: red}
- {name: bills, host: 127.0.0.1}
- {name: bills, host: 127.0.0.2}
- {name: orders, host: 127.0.0.1}
routes:
- {name: lost, paths: [/lost], service: {name: nowhere}}
- {name: open, paths: ["~/(unclosed"], service: bills}
- {name: none, service: bills}
plugins:
- name: no-such-plugin
- {name: key-auth, config: {key_nmaes: [a]}}
- {name: rate-limiting, config: {policy: local}}
consumers:
- username: alice
  keyauth_credentials: [{key: her-secret}, {key: her-secret}]
upstreams:
- {name: "not a host", targets: [{target: "127.0.0.1:1"}]}
"#;
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let problems = [
        "services[0] (orders).port: value should be between 0 and 65535",
        "services[0] (orders).retries: expected an integer",
        "services[0] (orders).colour: unknown field",
        "services[2] (bills).name: uniqueness violation",
        "services[3] (orders).name: uniqueness violation",
        "routes[0] (lost).service: invalid reference 'service: nowhere'",
        "routes[1] (open).paths[0]: invalid regex",
        "routes[2] (none)",
        "plugins[0] (no-such-plugin).name: plugin 'no-such-plugin' not enabled",
        "plugins[1] (key-auth).config.key_nmaes: unknown field",
        "plugins[2] (rate-limiting): at least one of these fields",
        "keyauth_credentials[1]",
        "upstreams[0] (not a host).name",
    ];
    for check in [&[][..], &["--check"]] {
        let done = Alone::launch(dir.path(), document, port, "")
            .args(check)
            .run(soon());
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        has_all(&done.stderr, &["kong.yml has 13 problems"]);
        has_all(&done.stderr, &problems);
        assert!(
            !done.stderr.contains("her-secret"),
            "a key is shown:\n{}",
            done.stderr
        );
        assert!(!done.stderr.contains("in use"), "{}", done.stderr);
    }
    drop(taken);
}

/// One problem, one line.
#[track_caller]
fn refused(document: &str, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let done = Alone::launch(dir.path(), document, 1, "")
        .arg("--check")
        .run(Deadline::secs(120)); // an alias bomb is read up to its bound

    assert_eq!(done.status.code(), Some(1), "{done:?}");
    has_all(&done.stderr, parts);
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
}

#[test]
fn a_malformed_declarative_file_is_told_with_its_place() {
    refused("services: [\n", &["kong.yml", "line 1", "not valid YAML"]);
    refused("{\"services\": 1", &["kong.yml", "line 1"]);
    refused("", &["kong.yml"]);
    refused("just a sentence", &["kong.yml"]);
    refused("services: []\n", &["_format_version", "required"]);
    refused("_format_version: '9.9'\n", &["_format_version", "3.0"]);
    refused("_format_version: '3.0'\nservices: 5\n", &["services"]);
    refused(
        "_format_version: '3.0'\nservises: []\n",
        &["servises", "unknown"],
    );
    let deep = format!("_format_version: '3.0'\nservices: {}\n", "[".repeat(50_000));
    refused(&deep, &["kong.yml"]);
    let bomb = "_format_version: '3.0'\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n\
                c: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n\
                e: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n\
                g: [*f,*f,*f,*f,*f,*f,*f,*f]\n";
    refused(bomb, &["kong.yml"]);
}

#[test]
fn check_binds_nothing() {
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let done = Alone::launch(dir.path(), &declarative(&echo), port, "")
        .arg("--check")
        .run(soon());
    assert!(done.status.success(), "{done:?}");
    // without it, the port in use is named together with its setting
    let done = Alone::launch(dir.path(), &declarative(&echo), port, "").run(soon());
    assert_eq!(done.status.code(), Some(1));
    has_all(
        &done.stderr,
        &[
            &format!("port {port} is already in use"),
            "proxy_listen in kong.conf",
        ],
    );
    drop(taken);
}

#[test]
fn files_that_are_missing_are_all_named() {
    let dir = tempfile::tempdir().unwrap();
    let more = "ssl_cert = nowhere.crt\nssl_cert_key = nowhere.key\n\
                proxy_listen = 127.0.0.1:1 ssl\n";
    let done = Alone::launch(dir.path(), "{}", 1, more)
        .env("KONG_DECLARATIVE_CONFIG", "nowhere.yml")
        .run(soon());
    assert_eq!(done.status.code(), Some(1));
    has_all(
        &done.stderr,
        &[
            "ssl_cert",
            "nowhere.crt",
            "declarative_config",
            "nowhere.yml",
        ],
    );

    let done = sallyport()
        .args(["gateway", "-c", "/nowhere/kong.conf"])
        .run(soon());
    assert_eq!(done.status.code(), Some(1));
    has_all(&done.stderr, &["/nowhere/kong.conf", "No such file"]);
}

#[test]
fn sigterm_lets_requests_under_way_finish() {
    let echo = Echo::start();
    let mut gateway = Alone::start(&declarative(&echo), "");
    echo.delay(Duration::from_secs(3));
    let slow = gateway.get("/echo/slow");
    let under_way = std::thread::spawn(move || slow.send());
    eventually("the request is at the upstream", soon(), || {
        echo.count() == 1
    });
    gateway.program.terminate();
    eventually("no new connection is taken", soon(), || {
        TcpStream::connect(("127.0.0.1", gateway.port)).is_err()
    });
    assert!(gateway.program.is_running(), "it waits for the request");
    let answer = under_way.join().unwrap().unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["path"], "/base/slow");
    assert_eq!(gateway.program.wait(soon()).code(), Some(0));
}

#[test]
fn a_second_gateway_on_the_same_port_is_refused() {
    let echo = Echo::start();
    let first = Alone::start(&declarative(&echo), "");
    let dir = tempfile::tempdir().unwrap();
    let second = Alone::launch(dir.path(), &declarative(&echo), first.port, "").run(soon());
    assert_eq!(second.status.code(), Some(1));
    has_all(
        &second.stderr,
        &[&first.port.to_string(), "in use", "proxy_listen"],
    );
    assert_eq!(first.get("/echo").send().unwrap().status, 200);
}

#[test]
fn a_prefix_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    write(&file, "");
    let pair = crate::lab::Pair::make(dir.path());
    let conf = format!(
        "role = data_plane\ndatabase = off\nprefix = {}\nproxy_listen = 127.0.0.1:{}\n\
         status_listen = off\nadmin_listen = off\ncluster_control_plane = 127.0.0.1:1\n\
         cluster_cert = {}\ncluster_cert_key = {}\n",
        Path::new(&file).display(),
        free_port(),
        pair.cert.display(),
        pair.key.display(),
    );
    let conf_file = dir.path().join("kong.conf");
    write(&conf_file, conf);
    let done = sallyport()
        .args(["gateway", "-c"])
        .arg(&conf_file)
        .run(soon());
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    has_all(&done.stderr, &["a-file", "prefix"]);
}
