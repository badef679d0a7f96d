//! `sallyport quickstart`: what a new user sees, pastes, stops and starts again.

use std::net::TcpListener;
use std::path::Path;

use sallyport_testkit::http::{get, request};
use sallyport_testkit::{Launch, Program, eventually, foreign, free_ports};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{Handshake, has_all, sallyport, soon};

const FLAGS: [&str; 5] = [
    "--control-port",
    "--proxy-port",
    "--proxy-tls-port",
    "--status-port",
    "--echo-port",
];

/// A quickstart on ports of its own, in a directory that outlives it.
struct Quickstart {
    dir: TempDir,
    ports: [u16; 5],
}

impl Quickstart {
    fn new() -> Quickstart {
        Quickstart {
            dir: tempfile::tempdir().unwrap(),
            ports: free_ports(),
        }
    }

    fn args(&self) -> Vec<String> {
        let flags = FLAGS.iter().zip(self.ports);
        let flags = flags.flat_map(|(flag, port)| [(*flag).to_owned(), port.to_string()]);
        std::iter::once("quickstart".to_owned())
            .chain(flags)
            .collect()
    }

    fn launch(&self) -> Launch {
        sallyport().args(self.args()).dir(self.dir.path())
    }

    #[track_caller]
    fn start(&self) -> (Program, Greeting) {
        let program = self.launch().start();
        let greeting = Greeting::of(&program);
        (program, greeting)
    }

    /// Asks the API over TLS, trusting the authority that the greeting names.
    #[track_caller]
    fn api(&self, greeting: &Greeting, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let port = self.ports[0];
        let ca = self.dir.path().join("sallyport-data/control/ca.crt");
        let handshake = Handshake {
            port,
            name: "localhost",
            ca: Some(&ca),
            pair: None,
            alpn: &["http/1.1"],
        };
        let url = format!("https://127.0.0.1:{port}{}/{path}", greeting.core_entities);
        let answer = request(method, url)
            .header("Authorization", format!("Bearer {}", greeting.token))
            .json(body)
            .send_over(&mut handshake.open().unwrap())
            .unwrap();
        (answer.status, answer.json())
    }

    fn proxy(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[1])
    }
}

/// What it printed for a person.
struct Greeting {
    text: String,
    token: String,
    curl: String,
    deck: String,
    /// Path of the core entities, out of the decK command.
    core_entities: String,
}

impl Greeting {
    #[track_caller]
    fn of(program: &Program) -> Greeting {
        program.wait_for_line("Ctrl-C stops everything", soon());
        let text = program.output();
        let token = program
            .wait_for_line(r"^Access token +(\S+)$", soon())
            .groups
            .remove(0);
        let path =
            program.wait_for_line(r"(/v2/control-planes/[0-9a-f-]{36}/core-entities)", soon());
        Greeting {
            curl: command(&text, "A request through the gateway:"),
            deck: command(&text, "Its configuration, with decK"),
            core_entities: path.groups[0].clone(),
            token,
            text,
        }
    }
}

/// The command that stands, indented, below the line that begins with `title`.
#[track_caller]
fn command(text: &str, title: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(title));
    assert!(lines.next().is_some(), "no {title:?} in:\n{text}");
    let command: Vec<&str> = lines.take_while(|line| line.starts_with("  ")).collect();
    assert!(
        !command.is_empty(),
        "nothing to paste below {title:?}:\n{text}"
    );
    command.join("\n")
}

/// Runs a command as somebody would who pasted it into a shell.
fn paste(command: &str, dir: &Path) -> Launch {
    Program::new("sh")
        .args(["-c", command])
        .dir(dir)
        .env("HOME", dir)
}

#[track_caller]
fn stop(mut program: Program) {
    program.interrupt();
    let status = program.wait(soon());
    assert_eq!(status.code(), Some(0), "{}", program.output());
}

#[test]
fn says_what_is_needed_next_and_no_more() {
    let quickstart = Quickstart::new();
    let (program, greeting) = quickstart.start();
    let [control, proxy, proxy_tls, ..] = quickstart.ports;
    let order = [
        format!("http://127.0.0.1:{proxy}"),
        format!("https://127.0.0.1:{proxy_tls}"),
        format!("https://127.0.0.1:{control}"),
        greeting.token.clone(),
        format!("curl http://127.0.0.1:{proxy}/echo"),
        "deck dump".to_owned(),
        "Ctrl-C".to_owned(),
    ];
    let places: Vec<_> = order.iter().map(|part| greeting.text.find(part)).collect();
    assert!(
        places.iter().all(Option::is_some),
        "{places:?}\n{}",
        greeting.text
    );
    assert!(places.is_sorted(), "{places:?}\n{}", greeting.text);
    let lines = greeting.text.lines().count();
    assert!(
        lines <= 25,
        "{lines} lines are too many to read:\n{}",
        greeting.text
    );
    // progress, before there is anything to paste
    for step in ["echo service", "control plane", "gateway", "configuration"] {
        let at = greeting
            .text
            .find(&format!("… {step}"))
            .unwrap_or(usize::MAX);
        assert!(
            at < places[0].unwrap(),
            "no progress for {step:?}:\n{}",
            greeting.text
        );
    }
    stop(program);
}

#[test]
fn the_pasted_curl_goes_through_the_gateway() {
    let Some(_) = foreign("curl", "Debian package curl") else {
        return;
    };
    let quickstart = Quickstart::new();
    let (program, greeting) = quickstart.start();
    assert!(
        greeting
            .curl
            .contains(&format!("127.0.0.1:{}/echo", quickstart.ports[1]))
    );
    // options for the test's sake only: the status on a line of its own
    let command = format!("{} -sS -w '\\n%{{http_code}}\\n'", greeting.curl);
    let answer = paste(&command, quickstart.dir.path())
        .run(soon())
        .success()
        .stdout;
    let (body, status) = answer.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(status, "200", "{answer}");
    let seen: Value = serde_json::from_str(body).unwrap();
    assert_eq!(seen["method"], "GET");
    assert_eq!(seen["headers"]["x-consumer-username"], "quickstart");
    assert_eq!(seen["headers"]["x-forwarded-prefix"], "/echo");

    let refused = get(quickstart.proxy("/echo")).send().unwrap();
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["message"], "No API key found in request");
    // over TLS as well, as the greeting says
    let handshake = Handshake {
        port: quickstart.ports[2],
        name: "localhost",
        ca: None,
        pair: None,
        alpn: &["http/1.1"],
    };
    let url = format!("https://127.0.0.1:{}/echo", quickstart.ports[2]);
    let answer = get(url)
        .header("apikey", "quickstart-key")
        .send_over(&mut handshake.open().unwrap())
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["headers"]["x-forwarded-proto"], "https");
    stop(program);
}

#[test]
fn the_limit_of_the_first_route_is_kept() {
    let quickstart = Quickstart::new();
    let (program, _) = quickstart.start();
    // 60 in a calendar minute: two minutes' worth and one more do not fit into two of them
    let over = (0..122).find_map(|_| {
        let answer = get(quickstart.proxy("/echo")).header("apikey", "quickstart-key");
        let answer = answer.send().unwrap();
        (answer.status != 200).then_some(answer)
    });
    let over = over.expect("no request was refused");
    assert_eq!(over.status, 429);
    assert_eq!(over.json()["message"], "API rate limit exceeded");
    assert_eq!(over.header("x-ratelimit-limit-minute"), Some("60"));
    assert_eq!(over.header("ratelimit-remaining"), Some("0"));
    stop(program);
}

#[test]
fn the_pasted_deck_command_dumps_and_its_options_sync() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    let quickstart = Quickstart::new();
    let (program, greeting) = quickstart.start();
    let dir = quickstart.dir.path();
    paste(&greeting.deck, dir).run(soon()).success();
    let file = dir.join("kong.yml");
    let dumped = std::fs::read_to_string(&file).unwrap();
    has_all(
        &dumped,
        &[
            "quickstart-key",
            "/echo",
            "rate-limiting",
            "echo.quickstart",
        ],
    );

    // "then edit kong.yml, and `deck sync` it with the same options"
    let with = |action: &str| {
        greeting
            .deck
            .replacen("dump -o", &format!("{action} -s"), 1)
    };
    let diff = paste(&with("diff"), dir).run(soon()).success();
    has_all(&diff.stdout, &["Created: 0", "Updated: 0", "Deleted: 0"]);
    std::fs::write(&file, dumped.replace("- /echo", "- /echo\n    - /hello")).unwrap();
    let sync = paste(&with("sync"), dir).run(soon()).success();
    has_all(&sync.stdout, &["Created: 0", "Updated: 1", "Deleted: 0"]);
    let hello = get(quickstart.proxy("/hello")).header("apikey", "quickstart-key");
    eventually("the edited route is served", soon(), || {
        hello.send().is_ok_and(|answer| answer.status == 200)
    });
    stop(program);
}

#[test]
fn a_second_start_finds_what_the_first_left() {
    let quickstart = Quickstart::new();
    let (program, first) = quickstart.start();
    let (status, made) = quickstart.api(
        &first,
        "PUT",
        "services/kept",
        &json!({"host": "127.0.0.1", "port": quickstart.ports[4]}),
    );
    assert_eq!(status, 200, "{made}");
    let route = json!({"paths": ["/kept"], "service": {"id": made["id"]}});
    let (status, made) = quickstart.api(&first, "PUT", "routes/kept", &route);
    assert_eq!(status, 200, "{made}");
    let served = || {
        get(quickstart.proxy("/kept"))
            .send()
            .is_ok_and(|answer| answer.status == 200)
    };
    eventually("the new route is served", soon(), served);
    stop(program);
    assert!(
        get(quickstart.proxy("/kept")).send().is_err(),
        "nothing listens any more"
    );

    let (program, second) = quickstart.start();
    assert_eq!(second.token, first.token);
    assert_eq!(second.core_entities, first.core_entities);
    assert!(
        served(),
        "what was changed before is served as soon as the greeting is out"
    );
    let echo = get(quickstart.proxy("/echo"))
        .header("apikey", "quickstart-key")
        .send()
        .unwrap();
    assert_eq!(echo.status, 200);
    stop(program);
}

/// "Run the gateway alone with" is what the file that quickstart wrote begins with.
#[test]
fn its_gateway_runs_alone_on_the_files_it_left() {
    let quickstart = Quickstart::new();
    let (program, _) = quickstart.start();
    stop(program);
    let conf = quickstart
        .dir
        .path()
        .join("sallyport-data/gateway/kong.conf");
    has_all(
        &std::fs::read_to_string(&conf).unwrap(),
        &["sallyport gateway -c", "cluster_control_plane = 127.0.0.1:"],
    );
    let gateway = sallyport().args(["gateway", "-c"]).arg(&conf).start();
    gateway.wait_for_line("gateway started", soon());
    let refused = get(quickstart.proxy("/echo")).send().unwrap();
    assert_eq!(refused.status, 401, "the last-known-good configuration");
    let gone = get(quickstart.proxy("/echo"))
        .header("apikey", "quickstart-key")
        .send()
        .unwrap();
    assert_eq!(gone.status, 502, "its upstream ended with quickstart");
    stop(gateway);
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    for (index, flag) in FLAGS.iter().enumerate() {
        let quickstart = Quickstart::new();
        let port = quickstart.ports[index];
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let done = quickstart.launch().run(soon());
        assert_eq!(done.status.code(), Some(1), "{flag}: {done:?}");
        has_all(
            &done.stderr,
            &[&format!("port {port} is already in use"), flag],
        );
        assert!(
            !done.stdout.contains("curl"),
            "nothing to paste yet: {}",
            done.stdout
        );
        drop(taken);
    }
}

#[test]
fn needs_no_rights() {
    let help = sallyport()
        .args(["quickstart", "--help"])
        .run(soon())
        .success()
        .stdout;
    let defaults: Vec<u16> = help
        .split("[default: ")
        .filter_map(|rest| rest.split(']').next()?.parse().ok())
        .collect();
    assert_eq!(defaults.len(), FLAGS.len(), "{help}");
    assert!(defaults.iter().all(|port| *port >= 1024), "{defaults:?}");

    // As root one would not notice: so without any of root's capabilities.
    let Some(setpriv) = foreign("setpriv", "Debian package util-linux") else {
        return;
    };
    let quickstart = Quickstart::new();
    let program = Program::new(setpriv)
        .args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"])
        .arg(env!("CARGO_BIN_EXE_sallyport"))
        .args(quickstart.args())
        .dir(quickstart.dir.path())
        .start();
    let ended = program.find_line_after(0, "Ctrl-C stops everything", soon());
    // Only root may drop capabilities; for anybody else every other test here is the proof.
    if program.output().contains("setpriv:") {
        return;
    }
    assert!(ended.is_ok(), "{ended:?}");
    stop(program);
}

#[test]
fn a_start_that_is_interrupted_leaves_state_that_the_next_one_takes() {
    let quickstart = Quickstart::new();
    for step in ["… echo", "… control plane", "… gateway", "… configuration"] {
        let program = quickstart.launch().start();
        program.wait_for_line(step, soon());
        stop(program);
        // and without being asked politely
        let mut program = quickstart.launch().start();
        program.wait_for_line(step, soon());
        program.kill9();
    }
    let (program, _) = quickstart.start();
    let echo = get(quickstart.proxy("/echo"))
        .header("apikey", "quickstart-key")
        .send()
        .unwrap();
    assert_eq!(echo.status, 200);
    stop(program);
}
