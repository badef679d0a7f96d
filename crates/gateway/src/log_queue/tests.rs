//! Queues against sinks that are there, away, slow or strange.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use sallyport_plugins::Endpoint;
use sallyport_plugins::log_queue::{
    Destination, HttpSink, Limits, LogQueue, LogQueues, QueueSpec, Sink,
};
use sallyport_runtime::tls::{ServerTrust, client_config};
use sallyport_testkit::{Deadline, eventually};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{Loss, Queues, Ways, supervise};

const LIMIT: Duration = Duration::from_secs(20);

fn soon() -> Deadline {
    Deadline::secs(30)
}

/// Queues, with a runtime that empties them.
struct Lab {
    queues: Queues,
    runtime: Runtime,
    supervisor: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Lab {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let tls = client_config(ServerTrust::Anybody, None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ways = Ways::new(&tls, &tls, dir.path().join("log"));
        let (queues, new) = Queues::new(ways.clone());
        let stop = CancellationToken::new();
        let supervisor = runtime.spawn(supervise(new, ways, stop.clone()));
        Lab {
            queues,
            runtime,
            supervisor,
            stop,
            dir,
        }
    }

    fn open(&self, plugin: &'static str, sink: Sink, limits: Limits) -> Arc<dyn LogQueue> {
        let encode = move |batch: &[Bytes]| match plugin {
            "udp-log" | "syslog" => batch.to_vec(),
            "http-log" => vec![batch.join(&b'\n').into()],
            _ => vec![batch.join(&b'\n').into(), Bytes::from_static(b"\n")],
        };
        self.queues.open(&QueueSpec {
            plugin,
            name: "one".to_owned(),
            limits,
            destination: Arc::new(Destination {
                sink,
                encode: Box::new(encode),
            }),
        })
    }

    fn lost(&self, loss: Loss) -> u64 {
        let lost = self.queues.lost();
        let of = lost.iter().filter(|(_, why, _)| *why == loss);
        of.map(|(_, _, count)| count).sum()
    }

    /// Stops, and returns once everything is sent or given up.
    fn stop(self) -> Queues {
        self.stop.cancel();
        self.runtime.block_on(self.supervisor).unwrap();
        self.queues
    }
}

fn limits() -> Limits {
    Limits {
        batch_entries_max: 1,
        coalescing_delay: Duration::ZERO,
        entries_max: 100,
        bytes_max: None,
        retry_time: Some(LIMIT),
        retry_delay: Duration::from_millis(5),
        retry_delay_max: Duration::from_millis(50),
        concurrent: false,
    }
}

fn http(port: u16) -> Sink {
    Sink::Http(HttpSink {
        endpoint: Endpoint::parse(&format!("http://me:s3cret@127.0.0.1:{port}/in?a=b")).unwrap(),
        method: Method::PUT,
        headers: HeaderMap::new(),
        connect_timeout: LIMIT,
        exchange_timeout: LIMIT,
        keepalive: LIMIT,
        verify: true,
    })
}

/// One request: its head in lower case, and its body.
fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    BufReader::new(stream)
}

fn answer(stream: &mut BufReader<TcpStream>, status: &str) {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
    stream.get_mut().write_all(text.as_bytes()).unwrap();
}

#[test]
fn one_connection_serves_many_requests_and_a_failure_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::new();
    let queue = lab.open(
        "http-log",
        http(listener.local_addr().unwrap().port()),
        limits(),
    );
    queue.push("first".into());
    let mut stream = accept(&listener);
    let (head, body) = read_request(&mut stream).unwrap();
    assert!(head.starts_with("put /in?a=b http/1.1\r\n"), "{head}");
    assert!(head.contains("host: 127.0.0.1:"), "{head}");
    assert_eq!(body, "first");
    answer(&mut stream, "503 No");
    // the payload of a failed request comes again, on another connection
    let mut stream = accept(&listener);
    assert_eq!(read_request(&mut stream).unwrap().1, "first");
    answer(&mut stream, "201 Created");
    queue.push("second".into());
    assert_eq!(read_request(&mut stream).unwrap().1, "second");
    answer(&mut stream, "200 OK");
    // a connection that the server closed is opened anew without a pause or a word
    drop(stream);
    queue.push("third".into());
    let mut stream = accept(&listener);
    assert_eq!(read_request(&mut stream).unwrap().1, "third");
    answer(&mut stream, "200 OK");
    assert_eq!(lab.stop().lost(), []);
}

#[test]
fn a_sink_that_is_away_costs_the_oldest_entries_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::new();
    let mut few = limits();
    (few.entries_max, few.batch_entries_max) = (10, 10);
    few.bytes_max = Some(100);
    let sink = http(listener.local_addr().unwrap().port());
    let queue = lab.open("http-log", sink, few);
    queue.push(vec![b'x'; 101].into());
    assert_eq!(lab.lost(Loss::TooLarge), 1);
    queue.push("under way".into());
    let mut stream = accept(&listener);
    read_request(&mut stream).unwrap();
    for n in 0..50 {
        queue.push(format!("{n}").into());
    }
    assert_eq!(lab.lost(Loss::Full), 40);
    assert_eq!(lab.queues.waiting()["http-log"], 11);
    drop(stream);
    let mut stream = accept(&listener);
    let left: Vec<String> = (40..50).map(|n| n.to_string()).collect();
    for expected in ["under way", &left.join("\n")] {
        assert_eq!(read_request(&mut stream).unwrap().1, expected);
        answer(&mut stream, "200 OK");
    }
    eventually("nothing waits", soon(), || {
        lab.queues.waiting()["http-log"] == 0
    });
    assert_eq!(lab.stop().lost().len(), 2, "nothing else is lost");
}

#[test]
fn lines_go_over_one_connection_and_over_another_when_it_breaks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::new();
    let sink = Sink::Tcp {
        host: "localhost".to_owned(),
        port: listener.local_addr().unwrap().port(),
        timeout: LIMIT,
        keepalive: LIMIT,
        tls: None,
    };
    let queue = lab.open("tcp-log", sink, limits());
    queue.push("a".into());
    let mut stream = accept(&listener);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    queue.push("b".into());
    stream.read_line(&mut line).unwrap();
    assert_eq!(line, "a\nb\n");
    drop(stream);
    eventually("a line comes over another connection", soon(), || {
        // until its end is seen here, lines go into the closed one
        queue.push("c".into());
        std::thread::sleep(Duration::from_millis(20));
        listener.set_nonblocking(true).unwrap();
        listener.accept().is_ok()
    });
}

#[test]
fn what_no_try_brings_is_given_up_and_a_stop_does_not_wait_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let lab = Lab::new();
    let mut once = limits();
    once.retry_time = None;
    let queue = lab.open("http-log", http(port), once);
    queue.push("refused".into());
    let mut stream = accept(&listener);
    read_request(&mut stream).unwrap();
    answer(&mut stream, "500 No");
    eventually("it is given up", soon(), || lab.lost(Loss::GivenUp) == 1);
    // nobody answers this one
    queue.push("stuck".into());
    queue.push("behind it".into());
    let mut stream = accept(&listener);
    read_request(&mut stream).unwrap();
    let queues = lab.stop();
    let lost = queues.lost();
    assert!(lost.contains(&("http-log", Loss::Stopped, 2)), "{lost:?}");
}

#[test]
fn what_waits_is_sent_when_the_gateway_stops() {
    let lab = Lab::new();
    let path = lab.dir.path().join("logs/a.log");
    let sink = Sink::File {
        path: path.clone(),
        reopen: false,
    };
    let mut slow = limits();
    (slow.batch_entries_max, slow.coalescing_delay) = (100, LIMIT);
    let queue = lab.open("file-log", sink, slow);
    queue.push("a".into());
    queue.push("b".into());
    let _dir = tempfile::TempDir::new_in(lab.dir.path()).unwrap();
    let kept = lab.dir.path().to_owned();
    assert!(!path.exists(), "it waits for others");
    lab.stop.cancel();
    lab.runtime.block_on(lab.supervisor).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
    assert!(kept.exists());
    drop(queue);
}

#[test]
fn a_queue_ends_with_the_last_who_holds_it_and_goes_on_with_the_next_configuration() {
    let lab = Lab::new();
    let file = |name: &str| lab.dir.path().join(name);
    let sink = |name| Sink::File {
        path: file(name),
        reopen: false,
    };
    let text = |name| std::fs::read_to_string(file(name)).unwrap_or_default();
    let old = lab.open("file-log", sink("old"), limits());
    old.push("1".into());
    eventually("it is written", soon(), || text("old") == "1\n");
    let new = lab.open("file-log", sink("new"), limits());
    assert_eq!(lab.queues.waiting().len(), 1, "one name, one queue");
    // requests that began with the older configuration come later
    old.push("2".into());
    eventually("it is written", soon(), || text("new") == "2\n");
    drop((old, new));
    assert_eq!(lab.queues.waiting().len(), 0);
    let again = lab.open("file-log", sink("new"), limits());
    again.push("3".into());
    eventually("it is written", soon(), || text("new") == "2\n3\n");
}

#[test]
fn files_are_opened_anew_when_they_are_told_to() {
    let lab = Lab::new();
    let file = |name: &str| lab.dir.path().join(name);
    let text = |name| std::fs::read_to_string(file(name)).unwrap_or_default();
    let sink = |reopen| Sink::File {
        path: file("a"),
        reopen,
    };
    let queue = lab.open("file-log", sink(false), limits());
    queue.push("1".into());
    eventually("it is written", soon(), || text("a") == "1\n");
    std::fs::rename(file("a"), file("b")).unwrap();
    queue.push("2".into());
    eventually("it is written", soon(), || text("b") == "1\n2\n");
    lab.queues.reopen();
    queue.push("3".into());
    eventually("it is written", soon(), || text("a") == "3\n");
    let _same = lab.open("file-log", sink(true), limits());
    queue.push("4".into());
    eventually("it is written", soon(), || text("a") == "3\n4\n");
    std::fs::rename(file("a"), file("c")).unwrap();
    queue.push("5".into());
    eventually("it is written", soon(), || text("a") == "5\n");
}

#[test]
fn datagrams_go_one_by_one_and_the_too_large_are_counted() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(LIMIT)).unwrap();
    let lab = Lab::new();
    let sink = Sink::Udp {
        host: "127.0.0.1".to_owned(),
        port: receiver.local_addr().unwrap().port(),
        timeout: LIMIT,
    };
    let mut once = limits();
    (once.retry_time, once.batch_entries_max) = (None, 10);
    let queue = lab.open("udp-log", sink, once.clone());
    queue.push("one".into());
    queue.push(vec![b'x'; 70_000].into());
    queue.push("two".into());
    let mut buffer = [0; 100];
    for expected in ["one", "two"] {
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], expected.as_bytes());
    }
    eventually("the loss is counted", soon(), || {
        lab.lost(Loss::GivenUp) == 1
    });
    let syslog = lab.open("syslog", Sink::Syslog, once);
    syslog.push("nobody there".into());
    eventually("the loss is counted", soon(), || {
        lab.lost(Loss::GivenUp) == 2
    });
    let daemon = UnixDatagram::bind(lab.dir.path().join("log")).unwrap();
    daemon.set_read_timeout(Some(LIMIT)).unwrap();
    syslog.push("<14>kong: {}".into());
    let length = daemon.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"<14>kong: {}");
}

#[test]
fn entries_go_beside_each_other_where_that_is_wanted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = Lab::new();
    let mut beside = limits();
    beside.concurrent = true;
    let sink = http(listener.local_addr().unwrap().port());
    let queue = lab.open("http-log", sink, beside);
    queue.push("a".into());
    queue.push("b".into());
    // both are asked before either is answered
    let mut streams = [accept(&listener), accept(&listener)];
    let mut bodies: Vec<String> = streams
        .iter_mut()
        .map(|stream| read_request(stream).unwrap().1)
        .collect();
    bodies.sort();
    assert_eq!(bodies, ["a", "b"]);
    for stream in &mut streams {
        answer(stream, "200 OK");
    }
    assert_eq!(lab.stop().lost(), []);
}
