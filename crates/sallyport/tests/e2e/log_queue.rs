//! Log plugins through the built gateway, towards real daemons and towards sinks that are away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use sallyport_testkit::http::get;
use sallyport_testkit::{Echo, Program, eventually, foreign, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit_log::collector::rsyslog;
use crate::lab::{Alone, Pair, has_all, soon};

/// A gateway with these plugins on the service `orders`, and its files.
struct Lab {
    echo: Echo,
    dir: TempDir,
    program: Program,
    port: u16,
    status: u16,
}

impl Lab {
    #[track_caller]
    fn start(plugins: &Value, conf: &str) -> Lab {
        let echo = Echo::start();
        let dir = tempfile::tempdir().unwrap();
        let document = json!({
            "_format_version": "3.0",
            "services": [{"name": "orders", "url": echo.url(), "plugins": plugins,
                "routes": [{"name": "all", "paths": ["/"]}]}],
        });
        let (port, status) = (free_port(), free_port());
        let conf = format!("status_listen = 127.0.0.1:{status}\n{conf}");
        let program = Alone::launch(dir.path(), &document.to_string(), port, &conf).start();
        program.wait_for_line("gateway started", soon());
        Lab {
            echo,
            dir,
            program,
            port,
            status,
        }
    }

    #[track_caller]
    fn ask(&self, path: &str) -> u16 {
        let request = get(format!("http://127.0.0.1:{}{path}", self.port));
        let request = request.header("Authorization", "Bearer s3cret");
        request.send().unwrap().status
    }

    #[track_caller]
    fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{}/metrics", self.status);
        get(url).send().unwrap().text()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

/// An entry is what Kong's would be, and holds no secret.
#[track_caller]
fn check(entry: &Value, path: &str) {
    assert_eq!(entry["request"]["uri"], path, "{entry}");
    assert_eq!(entry["request"]["headers"]["authorization"], "REDACTED");
    assert_eq!(entry["service"]["name"], "orders");
    assert_eq!(entry["route"]["name"], "all");
    assert_eq!(entry["response"]["status"], 200);
    assert_eq!(entry["upstream_status"], "200");
    assert_eq!(entry["client_ip"], "127.0.0.1");
    assert_eq!(entry["tries"].as_array().unwrap().len(), 1);
}

#[test]
fn rsyslog_takes_messages_and_lines() {
    let tcp = free_port();
    let configuration = |dir: &std::path::Path| {
        format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"64k\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{dir}/log\")\n\
             module(load=\"imtcp\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{tcp}\" ruleset=\"lines\")\n\
             template(name=\"all\" type=\"string\" \
             string=\"%syslogfacility-text%.%syslogseverity-text% %programname% %msg%\\n\")\n\
             template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
             ruleset(name=\"lines\") {{ action(type=\"omfile\" file=\"{dir}/lines.log\" template=\"raw\") }}\n\
             action(type=\"omfile\" file=\"{dir}/out.log\" template=\"all\")\n",
            dir = dir.display()
        )
    };
    let Some(daemon) = rsyslog(configuration) else {
        return;
    };
    let socket = daemon.dir.path().join("log");
    eventually("rsyslog listens", soon(), || {
        socket.exists() && std::net::TcpStream::connect(("127.0.0.1", tcp)).is_ok()
    });
    let lab = Lab::start(
        &json!([
            {"name": "syslog", "config": {"facility": "local3", "successful_severity": "notice",
                "log_level": "notice"}},
            {"name": "tcp-log", "config": {"host": "127.0.0.1", "port": tcp}},
        ]),
        &format!("sallyport_syslog_socket = {}", socket.display()),
    );
    assert_eq!(lab.ask("/one?a=b"), 200);
    eventually("the message is there", soon(), || {
        daemon.written().contains("/one?a=b")
    });
    let written = daemon.written();
    let line = written.lines().next().unwrap();
    let message = line.strip_prefix("local3.notice kong ").expect(line);
    check(&serde_json::from_str(message).unwrap(), "/one?a=b");
    let lines = daemon.dir.path().join("lines.log");
    let lines = || std::fs::read_to_string(&lines).unwrap_or_default();
    eventually("the line is there", soon(), || lines().ends_with('\n'));
    check(&serde_json::from_str(lines().trim()).unwrap(), "/one?a=b");
}

/// Prints the name that was asked for and the first line that comes.
const TLS_SERVER: &str = r#"
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
names = []
context.sni_callback = lambda connection, name, context: names.append(name)
listener = socket.create_server(("127.0.0.1", 0))
print("listens on", listener.getsockname()[1])
connection = context.wrap_socket(listener.accept()[0], server_side=True)
print("name", names[0], connection.makefile().readline())
"#;

#[test]
fn tcp_log_speaks_tls() {
    let Some(python) = foreign("python3", "Debian package python3") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    let server = Program::new(python)
        .args(["-u", "-c", TLS_SERVER])
        .args([&pair.cert, &pair.key])
        .start();
    let listens = server.wait_for_line(r"listens on (\d+)", soon());
    let port: u16 = listens.groups[0].parse().unwrap();
    let lab = Lab::start(
        &json!([{"name": "tcp-log", "config": {"host": "127.0.0.1", "port": port, "tls": true,
            "tls_sni": "logs.example"}}]),
        "",
    );
    assert_eq!(lab.ask("/tls"), 200);
    let line = server.wait_for_line(r"name (\S+) (\{.*\})", soon());
    assert_eq!(line.groups[0], "logs.example");
    check(&serde_json::from_str(&line.groups[1]).unwrap(), "/tls");
}

#[test]
fn files_are_written_and_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs/requests.log");
    let mut lab = Lab::start(
        &json!([
            {"name": "file-log", "config": {"path": path}},
            {"name": "correlation-id", "config": {"generator": "uuid"}},
        ]),
        "",
    );
    let text = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(lab.ask("/a"), 200);
    eventually("it is written", soon(), || text(&path).ends_with('\n'));
    check(&serde_json::from_str(text(&path).trim()).unwrap(), "/a");
    let old = dir.path().join("logs/old.log");
    std::fs::rename(&path, &old).unwrap();
    lab.program.signal("USR1");
    eventually("it writes to a new file", soon(), || {
        lab.ask("/b") == 200 && path.exists()
    });
    // what waits at the end is written
    assert_eq!(lab.ask("/last"), 200);
    lab.program.terminate();
    lab.program.wait(soon());
    assert!(text(&path).contains("\"/last\""));
    let lines = text(&path) + &text(&old);
    assert!(lines.lines().all(|line| line.starts_with('{')));
}

#[test]
fn a_server_that_is_away_holds_up_nobody_and_what_is_lost_is_counted() {
    let port = free_port();
    let queue = json!({"max_entries": 5, "max_batch_size": 5, "max_coalescing_delay": 0,
        "max_retry_delay": 0.1});
    let config = json!({"http_endpoint": format!("http://user:s3cret@127.0.0.1:{port}/in"),
        "queue": queue});
    let lab = Lab::start(&json!([{"name": "http-log", "config": config}]), "");
    for n in 0..40 {
        assert_eq!(lab.ask(&format!("/{n}")), 200);
    }
    assert_eq!(lab.echo.count(), 40);
    let lost = || {
        let metrics = lab.metrics();
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix(
                "sallyport_log_queue_lost_total{plugin=\"http-log\",reason=\"full\"} ",
            )
        });
        line.map_or(0, |count| count.parse().unwrap())
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    // five wait, and a batch of at most five may be under way; not counted earlier, because a
    // request is logged after its answer
    let counted: usize = lost();
    assert!((30..=35).contains(&counted), "{counted}");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut stream = BufReader::new(stream);
    let mut uris = Vec::new();
    while uris.len() < 40 - counted {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).unwrap(), 0, "{head}");
        }
        let head = head.to_ascii_lowercase();
        has_all(
            &head,
            &["post /in http/1.1", "authorization: basic dxnlcjpzm2nyzxq="],
        );
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        let entries: Vec<Value> = serde_json::from_slice(&body).unwrap();
        uris.extend(entries.iter().map(|entry| entry["request"]["uri"].clone()));
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    }
    assert_eq!(uris.last().unwrap(), "/39", "the newest are kept: {uris:?}");
    assert_eq!(lost(), counted);
    let log = lab.text("logs/error.log");
    has_all(
        &log,
        &[
            "log queue full",
            &format!("127.0.0.1:{port}"),
            "entries are sent again",
        ],
    );
    assert!(!log.contains("s3cret"), "{log}");
    assert!(!lab.program.output().contains("s3cret"));
}
