//! Many requests of every kind through one gateway: memory stays flat, and nothing stays open.

mod streams;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sallyport_testkit::http::{get, request};
use sallyport_testkit::{Deadline, Echo, Program, Scripted, eventually, foreign, free_port};

use crate::lab::{Doors, has_all, soon};

/// Rounds of each thread; every round is 13 requests.
const ROUNDS: usize = 100;
const THREADS: usize = 4;

struct Lab {
    gateway: Doors,
    _echo: Echo,
    broken: Scripted,
}

impl Lab {
    fn start() -> Lab {
        let echo = Echo::start();
        let broken = Scripted::start(|peer| {
            let head = peer.head()?;
            match head.windows(5).position(|at| at == b"/torn") {
                Some(_) => peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nab"),
                None => peer.write(b"garbage\r\n\r\n"),
            }
        });
        let document = format!(
            "_format_version: '3.0'\nservices:\n\
             - {{url: '{}', routes: [{{paths: [/echo]}}]}}\n\
             - {{url: '{}', retries: 1, routes: [{{paths: [/broken]}}]}}\n\
             - {{url: 'http://127.0.0.1:{}', retries: 1, routes: [{{paths: [/dead]}}]}}\n",
            echo.url(),
            broken.url(),
            free_port()
        );
        let more = "nginx_main_worker_processes = 1\nlog_level = crit\nproxy_access_log = off";
        Lab {
            gateway: Doors::start_quiet(&document, more),
            _echo: echo,
            broken,
        }
    }

    /// Thirteen requests that end in different ways.
    fn round(&self) {
        let url = |path: &str| format!("http://127.0.0.1:{}{path}", self.gateway.plain);
        let status = |path: &str| get(url(path)).send().unwrap().status;
        assert_eq!(status("/echo/a"), 200);
        assert_eq!(status("/nowhere"), 404);
        assert_eq!(status("/broken"), 502);
        assert_eq!(status("/dead"), 502);
        let body = vec![b'x'; 100_000];
        assert_eq!(
            request("POST", url("/echo"))
                .body(body)
                .send()
                .unwrap()
                .status,
            200
        );
        assert!(get(url("/broken/torn")).send().is_err());
        let connect = || {
            let stream = TcpStream::connect(("127.0.0.1", self.gateway.plain)).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            stream
        };
        // one connection, three requests
        let mut stream = connect();
        for _ in 0..3 {
            let answer = get(url("/echo/kept"))
                .keep_alive()
                .send_over(&mut stream)
                .unwrap();
            assert_eq!(answer.status, 200);
        }
        drop(stream);
        // clients that leave: within a head, within a body, before the answer
        for part in [
            "GET /echo HTTP/1.1\r\nHost:",
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\nabc",
            "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            connect().write_all(part.as_bytes()).unwrap();
        }
        // and one that is refused
        let mut stream = connect();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
            .unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
}

/// Resident memory, kB.
fn memory(program: &Program) -> usize {
    let path = format!("/proc/{}/statm", program.pid());
    let text = std::fs::read_to_string(path).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

fn descriptors(program: &Program) -> usize {
    let path = format!("/proc/{}/fd", program.pid());
    std::fs::read_dir(path).unwrap().count()
}

/// Rounds on several threads, a few and then many more, in which memory may not grow.
fn stays_flat(program: &Program, round: impl Fn() + Sync) {
    let rounds = |count: usize| {
        let left = AtomicUsize::new(count);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let take = |n: usize| n.checked_sub(1);
                    while left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                        .is_ok()
                    {
                        round();
                    }
                });
            }
        });
    };
    rounds(ROUNDS);
    let warm = memory(program);
    rounds(ROUNDS * THREADS);
    let after = memory(program);
    assert!(
        after < warm + 16 * 1024,
        "{warm} kB after {ROUNDS} rounds, {after} kB after {} more",
        ROUNDS * THREADS
    );
}

#[test]
fn memory_stays_flat_and_nothing_stays_open() {
    let lab = Lab::start();
    let idle = descriptors(&lab.gateway.program);
    stays_flat(&lab.gateway.program, || lab.round());
    // what is kept for later is bounded by the pool, and the broken upstream is let go
    eventually("nothing of the broken upstream is open", soon(), || {
        lab.broken.open() == 0
    });
    eventually(
        "descriptors are back to what idle connections take",
        Deadline::secs(60),
        || descriptors(&lab.gateway.program) <= idle + THREADS + 4,
    );
}

/// HTTP/2 load of other projects' tools.
#[test]
fn h2load_and_nghttp_are_served() {
    let (Some(h2load), Some(nghttp)) = (
        foreign("h2load", "Debian package nghttp2-client"),
        foreign("nghttp", "Debian package nghttp2-client"),
    ) else {
        return;
    };
    let lab = Lab::start();
    for url in [
        format!("http://127.0.0.1:{}/echo", lab.gateway.plain),
        format!("https://127.0.0.1:{}/echo", lab.gateway.tls),
    ] {
        let done = Program::new(&h2load)
            .args(["-n", "2000", "-c", "10", "-m", "20", &url])
            .run(Deadline::secs(120))
            .success();
        has_all(
            &done.stdout,
            &[
                "2000 succeeded, 0 failed, 0 errored",
                "status codes: 2000 2xx",
            ],
        );
        let done = Program::new(&nghttp)
            .args(["-v", "-n", "--no-verify-peer", &url, &url])
            .run(soon())
            .success();
        has_all(&done.stdout, &[":status: 200", "END_STREAM"]);
    }
}
