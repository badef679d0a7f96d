//! The log phase runs once for each request, however it ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use sallyport_model::declarative::{Format, parse};
use sallyport_plugins::{BodyUse, Env, Exchange, Finished, Flow, Handler, Reply, ResponseHead};
use sallyport_wire::ConfigHash;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Bound, Speaks, Workers, open};
use crate::conf::RouterFlavor;
use crate::configuration::Configuration;
use crate::enabled::Enabled;

const SOON: Duration = Duration::from_secs(20);

/// Tells what it is asked to log; refuses paths that say so.
struct Logger(Mutex<Sender<Value>>);

impl Handler for Logger {
    fn access(&self, exchange: &mut Exchange, _env: &Env<'_>) -> Flow {
        match exchange.request.uri.path() {
            "/refused" => Flow::Respond(Reply::error(StatusCode::FORBIDDEN, "no")),
            "/stuck" => Flow::Wait(Box::pin(std::future::pending())),
            _ => Flow::Continue,
        }
    }

    fn filters_bodies(&self) -> bool {
        true
    }

    fn body_use(&self, exchange: &Exchange, _response: &ResponseHead<'_>) -> BodyUse {
        match exchange.request.uri.path() {
            "/held" => BodyUse::Replace(1 << 20),
            _ => BodyUse::Pass,
        }
    }

    fn logs(&self) -> bool {
        true
    }

    fn log(&self, exchange: &mut Exchange, finished: &Finished<'_>, _env: &Env<'_>) {
        let entry = finished.entry(exchange).to_value();
        self.0.lock().unwrap().send(entry).unwrap();
    }
}

struct Lab {
    proxy: SocketAddr,
    logged: Receiver<Value>,
    stop: CancellationToken,
    workers: Option<Workers>,
}

impl Lab {
    /// A gateway with one route to an upstream that answers this and closes.
    fn new(answer: &'static str) -> Lab {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = upstream.local_addr().unwrap().port();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = upstream.accept() {
                let mut head = [0; 4096];
                _ = stream.read(&mut head);
                _ = stream.write_all(answer.as_bytes());
            }
        });
        Lab::to(port)
    }

    fn to(port: u16) -> Lab {
        let document = json!({
            "_format_version": "3.0",
            "services": [{
                "name": "s", "url": format!("http://127.0.0.1:{port}/base"), "retries": 1,
                "routes": [{"name": "r", "paths": ["/"]}],
            }],
            "plugins": [{"name": "key-auth"}],
        });
        let (conf, _) = crate::conf::Conf::load(Some("database = off"), [], &["key-auth"]).unwrap();
        let enabled = Enabled::new(&conf);
        let declared = parse(document, Format::File, &enabled).unwrap();
        let mut configuration = Configuration::empty(RouterFlavor::TraditionalCompatible)
            .keeping_all(true)
            .next(&declared, ConfigHash::ZERO)
            .unwrap();
        let (sender, logged) = channel();
        let logger = Box::new(Logger(Mutex::new(sender)));
        Arc::get_mut(&mut configuration.handlers)
            .unwrap()
            .replace(0, logger);
        let bound = Bound {
            id: "proxy.http",
            address: "127.0.0.1:0".parse().unwrap(),
            backlog: 64,
            ipv6_only: None,
            tls: None,
            http2: true,
            speaks: Speaks::Http,
            proxy_protocol: false,
            keepalive: None,
        };
        let listeners = open(&[bound], 1, "test").unwrap();
        let proxy = listeners[0][0].0.address;
        let shared = super::testing::shared(&conf, configuration);
        let stop = CancellationToken::new();
        let workers = Workers::start(&shared, listeners, &stop, SOON).unwrap();
        Lab {
            proxy,
            logged,
            stop,
            workers: Some(workers),
        }
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.proxy).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// The one entry of a request whose answer is read to its end.
    #[track_caller]
    fn entry(&self, request: &str) -> Value {
        let mut answer = Vec::new();
        _ = self.send(request).read_to_end(&mut answer);
        let entry = self.logged.recv_timeout(SOON).unwrap();
        let sent = entry["response"]["size"].as_u64().unwrap();
        assert_eq!(sent, answer.len() as u64, "{entry:#}");
        assert_eq!(entry["request"]["size"], request.len(), "{entry:#}");
        entry
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
        self.workers.take().unwrap().join();
        if !std::thread::panicking() {
            assert!(self.logged.try_recv().is_err(), "logged twice");
        }
    }
}

const CLOSE: &str = "Host: Api.Example:80\r\nConnection: close\r\n\r\n";

#[track_caller]
fn check(answer: &'static str, request: &str, status: u16, source: &str, upstream: &str) -> Value {
    let entry = Lab::new(answer).entry(request);
    assert_eq!(entry["response"]["status"], status, "{entry:#}");
    assert_eq!(entry["source"], source, "{entry:#}");
    assert_eq!(entry["upstream_status"], upstream, "{entry:#}");
    entry
}

const OK: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Up: 1\r\nConnection: close\r\n\r\nhello";

#[test]
fn a_proxied_request_is_told_whole() {
    let request = format!("POST /a?x=1 HTTP/1.1\r\nContent-Length: 3\r\n{CLOSE}abc");
    let entry = check(OK, &request, 200, "upstream", "200");
    assert_eq!(entry["upstream_uri"], "/base/a?x=1");
    assert_eq!(entry["request"]["uri"], "/a?x=1");
    assert_eq!(entry["request"]["querystring"], json!({"x": "1"}));
    let url = entry["request"]["url"].as_str().unwrap();
    assert!(url.starts_with("http://api.example:") && url.ends_with("/a?x=1"));
    assert_eq!(entry["response"]["headers"]["x-up"], "1");
    assert_eq!(entry["route"]["name"], "r");
    assert_eq!(entry["route"]["service"]["id"], entry["service"]["id"]);
    assert_eq!(entry["service"]["name"], "s");
    assert_eq!(entry["tries"].as_array().unwrap().len(), 1);
    assert_eq!(entry["tries"][0]["ip"], "127.0.0.1");
    assert!(entry["tries"][0]["state"].is_null());
    assert!(entry["latencies"]["proxy"].as_i64().unwrap() >= 0);
    assert!(entry["request"]["tls"].is_null());
}

#[test]
fn answers_of_the_gateway_are_logged() {
    let refused = format!("GET /refused HTTP/1.1\r\n{CLOSE}");
    let entry = check(OK, &refused, 403, "kong", "");
    assert_eq!(entry["latencies"]["proxy"], -1);
    assert_eq!(entry["tries"], json!([]));
    let garbage = format!("GET / HTTP/1.1\r\n{CLOSE}");
    let entry = check("no http\r\n\r\n", &garbage, 502, "kong", "502");
    assert_eq!(entry["tries"][0]["state"], "failed");
    assert_eq!(entry["tries"][0]["code"], 502);
}

#[test]
fn every_try_is_told() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let entry = Lab::to(port).entry(&format!("GET / HTTP/1.1\r\n{CLOSE}"));
    assert_eq!(entry["upstream_status"], "502, 502");
    assert_eq!(entry["tries"][1]["port"], port);
}

#[test]
fn a_response_that_breaks_off_is_logged_as_far_as_it_came() {
    let request = format!("GET / HTTP/1.1\r\n{CLOSE}");
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello";
    check(short, &request, 200, "upstream", "200");
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        &request,
        200,
        "upstream",
        "200",
    );
}

#[test]
fn a_response_that_a_plugin_waits_for_and_that_breaks_off_is_a_bad_gateway() {
    let request = format!("GET /held HTTP/1.1\r\n{CLOSE}");
    let entry = check(OK, &request, 200, "upstream", "200");
    assert_eq!(entry["route"]["name"], "r");
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello";
    let entry = check(short, &request, 502, "kong", "200");
    let id = &entry["response"]["headers"]["x-kong-request-id"];
    assert_eq!(id, &entry["request"]["id"]);
}

#[test]
fn what_is_no_request_is_no_plugins_business() {
    let lab = Lab::new(OK);
    let mut answer = String::new();
    lab.send("GET / HTTP/1.1\r\n\r\n")
        .read_to_string(&mut answer)
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_client_that_goes_away_is_logged() {
    // over HTTP/2 a stream is reset while its request rests
    let lab = Lab::new(OK);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(lab.proxy).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(executor)
            .handshake(io)
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        let request = |path: &str| {
            http::Request::get(format!("http://api.example{path}"))
                .body(http_body_util::Empty::<bytes::Bytes>::new())
                .unwrap()
        };
        let stuck = sender.send_request(request("/stuck"));
        // the second answer shows that the first request has arrived
        let stuck = tokio::spawn(stuck);
        let answer = sender.send_request(request("/refused")).await.unwrap();
        assert_eq!(answer.status(), 403);
        stuck.abort();
        drop((answer, sender));
        driver.await.unwrap().unwrap();
    });
    let first = lab.logged.recv_timeout(SOON).unwrap();
    let second = lab.logged.recv_timeout(SOON).unwrap();
    assert_eq!(first["response"]["status"], 403);
    assert_eq!(second["response"]["status"], 499);
    assert_eq!(second["request"]["uri"], "/stuck");
}
