use std::path::Path;
use std::time::Duration;

use sallyport_wire::rate_limit::frame::RESPONSE_BYTES_MAX;
use sallyport_wire::rate_limit::{Body, Id, Method, Request, Response, split};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

const BUCKETS: &str = "buckets:
  ip: {size: 10, per_second: 5}
  quick: {size: 10, per_second: 200}
  fixed: {size: 3}
";

struct Server {
    running: RateLimit,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(text: &str) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buckets.yml");
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path, 0).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let running = RateLimit::start(config, path, address, "--listen", None).unwrap();
        Server { running, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("buckets.yml")
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.running.address()).await.unwrap()
    }
}

fn request<'a>(method: Method, bucket: &'a str, key: &'a str, number: i32) -> Request<'a> {
    Request {
        id: Id::Number(number),
        bucket: bucket.as_bytes(),
        key: key.as_bytes(),
        method,
        count: None,
        all: false,
        skip_response: false,
        lease: 0,
        windows: b"",
    }
}

fn bytes(requests: &[Request<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    requests.iter().for_each(|request| request.encode(&mut out));
    out
}

/// The next answers, so many.
async fn answers<S: AsyncRead + Unpin>(stream: &mut S, many: usize) -> Vec<(i32, Body)> {
    let mut buffer = Vec::new();
    let mut found = Vec::new();
    while found.len() < many {
        let read = stream.read_buf(&mut buffer);
        let read = timeout(Duration::from_secs(20), read)
            .await
            .expect("an answer");
        assert!(read.unwrap() > 0, "closed after {found:?}");
        let mut done = 0;
        while let Some(frame) = split(&buffer[done..], RESPONSE_BYTES_MAX).unwrap() {
            let response = Response::decode(frame.body).unwrap();
            let Id::Number(id) = response.id else {
                panic!("{:?}", response.id)
            };
            found.push((id, response.body));
            done += frame.bytes;
        }
        buffer.drain(..done);
    }
    assert!(buffer.is_empty(), "more than {many} answers");
    found
}

async fn is_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(120), stream.read_to_end(&mut rest)).await;
    _ = end.expect("the connection is closed");
    assert!(rest.is_empty(), "{rest:?}");
}

fn conformant(answer: &(i32, Body)) -> bool {
    matches!(answer.1, Body::Take(taken) if taken.conformant)
}

#[tokio::test]
async fn frames_may_be_cut_anywhere() {
    let server = Server::start(BUCKETS);
    let all = bytes(&[
        request(Method::Ping, "", "", 1),
        request(Method::Take, "fixed", "cut", 2),
        request(Method::Get, "fixed", "cut", 3),
    ]);
    for at in 0..=all.len() {
        let mut stream = server.connect().await;
        stream.set_nodelay(true).unwrap();
        let (first, second) = all.split_at(at);
        stream.write_all(first).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(second).await.unwrap();
        let found = answers(&mut stream, 3).await;
        assert_eq!(found[0], (1, Body::Pong { version: 0 }));
        assert_eq!(conformant(&found[1]), at < 3, "{at}");
    }
    server.running.stop().await;
}

#[tokio::test]
async fn bad_messages_close_their_connection_only() {
    let server = Server::start(BUCKETS);
    let mut good = server.connect().await;
    for bad in [
        &b"\xff\xff\xff\xff\xff\xff"[..],      // a length that does not end
        &[0x81, 0x80, 0x01],                   // 16,385 bytes
        &[2, 0x0b, 0x0b],                      // a group
        &[5, 0x0a, 1, b'1', 0x20, 9],          // method 9
        &[3, 0x0a, 1, b'1'],                   // no method
        b"GET / HTTP/1.1\r\n\r\n",             // HTTP: 71 bytes that make no message
        &[0x16, 0x03, 0x01, 0x00, 0x05, 0x01], // TLS where there is none
    ] {
        let mut stream = server.connect().await;
        stream.write_all(bad).await.unwrap();
        if bad[0] == b'G' {
            stream.write_all(&[b'x'; 80]).await.unwrap();
        }
        if bad[0] == 0x16 {
            stream.write_all(&[0; 5]).await.unwrap();
            let mut alert = Vec::new();
            timeout(Duration::from_secs(20), stream.read_to_end(&mut alert))
                .await
                .expect("closed")
                .ok();
            continue;
        }
        is_closed(stream).await;
    }
    // an empty frame is nothing, and what came before a bad message is answered
    good.write_all(&[0, 0]).await.unwrap();
    let mut both = bytes(&[request(Method::Ping, "", "", 7)]);
    both.extend([2, 0x0b, 0x0b]);
    good.write_all(&both).await.unwrap();
    assert_eq!(
        answers(&mut good, 1).await,
        [(7, Body::Pong { version: 0 })]
    );
    is_closed(good).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_end_is_given_up() {
    let server = Server::start(BUCKETS);
    let mut slow = server.connect().await;
    slow.write_all(&[9, 0x0a]).await.unwrap();
    is_closed(slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_does_not_hold_up_others() {
    let server = Server::start(BUCKETS);
    let mut stream = server.connect().await;
    let count = |request: Request<'static>, count| Request {
        count: Some(count),
        ..request
    };
    let all = bytes(&[
        count(request(Method::Take, "quick", "w", 1), 10),
        count(request(Method::Wait, "quick", "w", 2), 10),
        count(request(Method::Wait, "quick", "w", 3), 2),
        request(Method::Take, "quick", "w", 4),
        count(request(Method::Wait, "quick", "w", 5), 11),
        request(Method::Wait, "fixed", "w", 6),
    ]);
    stream.write_all(&all).await.unwrap();
    let found = answers(&mut stream, 6).await;
    let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 4, 5, 6, 2, 3]);
    let conformant: Vec<_> = found.iter().map(conformant).collect();
    assert_eq!(conformant, [true, false, false, true, true, true]);
    let delayed = |at: usize| matches!(found[at].1, Body::Take(taken) if taken.delayed);
    assert!(delayed(4) && delayed(5) && !delayed(3));
}

#[tokio::test]
async fn who_leaves_gives_back_what_he_waited_for() {
    let server = Server::start("buckets: {slow: {size: 2, per_minute: 1}}");
    let mut stream = server.connect().await;
    let take = Request {
        count: Some(2),
        ..request(Method::Take, "slow", "w", 1)
    };
    let wait = Request {
        method: Method::Wait,
        ..take
    };
    stream.write_all(&bytes(&[take, wait])).await.unwrap();
    answers(&mut stream, 1).await;
    let mut other = server.connect().await;
    let put = request(Method::Put, "slow", "w", 2);
    other.write_all(&bytes(&[put])).await.unwrap();
    let level = |found: &[(i32, Body)]| match found[0].1 {
        Body::Put(level) | Body::Get(level) => level.remaining,
        _ => panic!("{found:?}"),
    };
    assert_eq!(level(&answers(&mut other, 1).await), 0, "they are reserved");
    drop(stream);
    let get = bytes(&[request(Method::Get, "slow", "w", 3)]);
    let back = async {
        loop {
            other.write_all(&get).await.unwrap();
            if level(&answers(&mut other, 1).await) > 0 {
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), back)
        .await
        .expect("given back");
}

#[tokio::test]
async fn the_file_is_followed_and_a_bad_one_is_not() {
    let server = Server::start(BUCKETS);
    let mut stream = server.connect().await;
    let get = bytes(&[request(Method::Get, "fixed", "f", 1)]);
    let limit = async |stream: &mut TcpStream| {
        stream.write_all(&get).await.unwrap();
        match answers(stream, 1).await[0].1 {
            Body::Get(level) => level.limit,
            _ => panic!("no level"),
        }
    };
    assert_eq!(limit(&mut stream).await, 3);
    std::fs::write(server.path(), "buckets: {fixed: {sise: 5}}").unwrap();
    server.running.reload();
    std::fs::write(server.path(), "buckets: {fixed: {size: 5}}").unwrap();
    let changed = async { while limit(&mut stream).await != 5 {} };
    timeout(Duration::from_secs(20), changed)
        .await
        .expect("read again");
}

#[tokio::test]
async fn tls_for_clients() {
    let dir = tempfile::tempdir().unwrap();
    let pair = sallyport_runtime::certs::self_signed_localhost(1).unwrap();
    std::fs::write(dir.path().join("server.crt"), &pair.cert).unwrap();
    std::fs::write(dir.path().join("server.key"), &pair.key).unwrap();
    let text = |required: bool| {
        let dir = dir.path().display();
        format!(
            "tls: {{certificate: {dir}/server.crt, key: {dir}/server.key, required: {required}}}\n\
             {BUCKETS}"
        )
    };
    let ping = bytes(&[request(Method::Ping, "", "", 1)]);
    let server = Server::start(&text(false));
    let mut plain = server.connect().await;
    plain.write_all(&ping).await.unwrap();
    answers(&mut plain, 1).await;

    let server = Server::start(&text(true));
    let mut plain = server.connect().await;
    plain.write_all(&ping).await.unwrap();
    is_closed(plain).await;
    let roots = sallyport_runtime::tls::trust_store(&[&pair.cert]).unwrap();
    let trust = sallyport_runtime::tls::ServerTrust::Roots(Arc::new(roots));
    let config = sallyport_runtime::tls::client_config(trust, None).unwrap();
    let stream = server.connect().await;
    let mut stream = sallyport_runtime::tls::connect(Arc::new(config), "localhost", stream)
        .await
        .unwrap();
    stream.write_all(&ping).await.unwrap();
    assert_eq!(
        answers(&mut stream, 1).await[0].1,
        Body::Pong { version: 0 }
    );
}

#[tokio::test]
async fn a_start_names_what_is_wrong() {
    let path = Path::new("buckets.yml");
    let source = |text: &str| config_of(text);
    let address = "127.0.0.1:0".parse().unwrap();
    let first = RateLimit::start(source(BUCKETS), path.into(), address, "--listen", None).unwrap();
    let again = RateLimit::start(
        source(BUCKETS),
        path.into(),
        first.address(),
        "--listen",
        None,
    );
    let error = again.err().unwrap().to_string();
    assert!(
        error.contains("already in use") && error.contains("--listen"),
        "{error}"
    );
    let text = format!("tls: {{certificate: /none.crt, key: /none.key}}\n{BUCKETS}");
    let error = RateLimit::start(source(&text), path.into(), address, "--listen", None);
    let error = error.err().unwrap().to_string();
    assert!(error.contains("/none.crt"), "{error}");
}

fn config_of(text: &str) -> Config {
    let source = crate::rate_limit::config::Source {
        path: "buckets.yml".into(),
        text: text.to_owned(),
    };
    Config::parse(&[source], 0).unwrap()
}
