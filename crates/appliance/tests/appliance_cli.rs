//! Port 10121 from outside: what is no request ends its own connection and no other.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sallyport_appliance::appliance_cli::{
    AllowedKey, AllowedKeys, Called, Entry, Later, Recorder, Server, Settings,
};
use sallyport_runtime::Tasks;
use sallyport_runtime::certs::{Curve, PemPair, data_plane_pair};
use sallyport_runtime::tls::{
    CertDigest, Identity, ServerTrust, client_config, connect, leaf_digest,
};
use sallyport_wire::appliance_cli::{
    ALPN, Argument, Command, FRAME_BYTES_MAX, Kind, Reply, split, write,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Keeps what is recorded; may be told to fail.
#[derive(Default)]
struct Records {
    called: Mutex<Vec<Called>>,
    refused: Mutex<Vec<String>>,
    full: Mutex<bool>,
}

impl Recorder for Records {
    fn ready(&self) -> Later<'_, Result<(), String>> {
        let full = *self.full.lock().unwrap();
        Box::pin(async move {
            if full {
                Err("the disk is full".to_owned())
            } else {
                Ok(())
            }
        })
    }

    fn called(&self, called: Called) -> Later<'_, Result<(), String>> {
        self.called.lock().unwrap().push(called);
        Box::pin(async { Ok(()) })
    }

    fn refused(&self, _: SocketAddr, _: CertDigest, reason: String) -> Later<'_, ()> {
        self.refused.lock().unwrap().push(reason);
        Box::pin(async {})
    }
}

struct Lab {
    address: SocketAddr,
    client: PemPair,
    records: Arc<Records>,
    keys: AllowedKeys,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

fn pair(name: &str) -> PemPair {
    data_plane_pair(name, Curve::P256, 10).unwrap()
}

fn identity(pair: &PemPair) -> Identity {
    Identity::load(&pair.cert, &pair.key).unwrap()
}

fn digest(pair: &PemPair) -> CertDigest {
    leaf_digest(&identity(pair).chain()[0])
}

/// A command that says what it was given, in pieces.
fn echo() -> Entry {
    let argument = |name: &str, secret| Argument {
        name: name.to_owned(),
        about: String::new(),
        required: false,
        secret,
    };
    Entry {
        command: Command {
            name: "echo".to_owned(),
            about: String::new(),
            arguments: vec![argument("text", false), argument("pass", true)],
            file: true,
        },
        run: Arc::new(|call| {
            Box::pin(async move {
                let text = call.get("text").unwrap_or_default().to_owned();
                for byte in text.bytes() {
                    if call.outlet.data(vec![byte]).await.is_err() {
                        return Reply::refused("gone", "gone");
                    }
                }
                Reply::new(text)
            })
        }),
    }
}

/// A command that lets go of everything it was given at once.
fn ping() -> Entry {
    Entry {
        command: Command {
            name: "ping".to_owned(),
            about: String::new(),
            arguments: Vec::new(),
            file: false,
        },
        run: Arc::new(|_| {
            Box::pin(async {
                tokio::task::yield_now().await;
                Reply::new("PONG")
            })
        }),
    }
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let client = pair("ann");
        let keys = AllowedKeys::of(dir.path());
        let name = "ann".to_owned();
        keys.allow(AllowedKey {
            digest: digest(&client),
            name,
        })
        .unwrap();
        let records = Arc::new(Records::default());
        let mut tasks = Tasks::new(CancellationToken::new());
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            listen_setting: "test".to_owned(),
            identity: identity(&pair("node")),
            keys: keys.clone(),
            commands: vec![echo(), ping()],
            recorder: records.clone(),
        };
        let server = Server::start(settings, &mut tasks).unwrap();
        Lab {
            address: server.address(),
            client,
            records,
            keys,
            tasks,
            _dir: dir,
        }
    }

    async fn dial(&self, as_client: Option<&PemPair>) -> std::io::Result<TlsStream<TcpStream>> {
        let identity = as_client.map(identity);
        let mut config = client_config(ServerTrust::Anybody, identity.as_ref()).unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        connect(config.into(), "node", stream)
            .await
            .map_err(std::io::Error::other)
    }

    async fn own(&self) -> TlsStream<TcpStream> {
        self.dial(Some(&self.client)).await.unwrap()
    }

    /// A command over a connection of its own still works.
    async fn is_well(&self) {
        let mut stream = self.own().await;
        let (data, reply) = ask(
            &mut stream,
            r#"{"protocol":1,"command":"echo","arguments":{"text":"hey"}}"#,
        )
        .await;
        assert_eq!((data.as_str(), reply.message.as_str()), ("hey", "hey"));
        let (_, reply) = ask(&mut stream, r#"{"protocol":1,"command":"ping"}"#).await;
        assert_eq!(reply.message, "PONG");
    }
}

async fn send(stream: &mut TlsStream<TcpStream>, request: &str) {
    let mut frame = Vec::new();
    write(Kind::Request, request.as_bytes(), &mut frame);
    // cut anywhere
    for byte in frame {
        stream.write_all(&[byte]).await.unwrap();
    }
    stream.flush().await.unwrap();
}

async fn ask(stream: &mut TlsStream<TcpStream>, request: &str) -> (String, Reply) {
    send(stream, request).await;
    answer(stream).await
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> (String, Reply) {
    let (mut read, mut data) = (Vec::new(), Vec::new());
    loop {
        while let Some(frame) = split(&read, FRAME_BYTES_MAX).unwrap() {
            match frame.kind {
                Kind::Data => data.extend_from_slice(frame.payload),
                Kind::Reply => {
                    let reply = serde_json::from_slice(frame.payload).unwrap();
                    return (String::from_utf8(data).unwrap(), reply);
                }
                other => panic!("{other:?}"),
            }
            let bytes = frame.bytes;
            read.drain(..bytes);
        }
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_buf(&mut read)).await;
        assert!(read.unwrap().unwrap() > 0, "the connection ended");
    }
}

/// The connection ends without another word than those of TLS.
async fn ends(mut stream: TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    let read = tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .expect("it ends");
    assert!(read.is_err() || rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let lab = Lab::new();
    let mut steady = lab.own().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0, 0, 0, 0],
        &[0xff; 64],
        &[0, 2, 0, 0, 1],       // longer than a request may be
        &[0, 0, 0, 2, 9, 0],    // an unknown kind
        &[0, 0, 0, 2, 2, b'{'], // a reply
    ] {
        let mut stream = lab.own().await;
        stream.write_all(garbage).await.unwrap();
        ends(stream).await;
    }
    // cut short
    let mut stream = lab.own().await;
    stream.write_all(&[0, 0, 0, 9, 1, b'{']).await.unwrap();
    stream.shutdown().await.unwrap();
    ends(stream).await;
    // no JSON, or a name that no command has: said, then closed
    for text in ["", "{", r#"{"protocol":1,"command":"../x"}"#] {
        let mut stream = lab.own().await;
        let (_, reply) = ask(&mut stream, text).await;
        assert_eq!(reply.error.as_deref(), Some("bad_request"), "{reply:?}");
        ends(stream).await;
    }
    // no TLS at all
    let mut plain = TcpStream::connect(lab.address).await.unwrap();
    plain.write_all(b"PING\r\n").await.unwrap();
    let mut rest = Vec::new();
    _ = plain.read_to_end(&mut rest).await;
    lab.is_well().await;
    // one that was open all the time
    let (_, reply) = ask(&mut steady, r#"{"protocol":1,"command":"echo"}"#).await;
    assert_eq!(reply.error, None);
    lab.tasks.finish(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn who_is_not_known_is_told_and_recorded() {
    let lab = Lab::new();
    let other = pair("eve");
    let mut stream = lab.dial(Some(&other)).await.unwrap();
    let (_, reply) = ask(&mut stream, r#"{"protocol":1,"command":"echo"}"#).await;
    assert_eq!(reply.error.as_deref(), Some("unknown_key"));
    assert!(
        reply.message.contains(&digest(&other).to_string()),
        "{}",
        reply.message
    );
    ends(stream).await;
    assert_eq!(lab.records.refused.lock().unwrap().len(), 1);
    assert!(lab.records.called.lock().unwrap().is_empty());
    // without a certificate there is no connection
    if let Ok(stream) = lab.dial(None).await {
        ends(stream).await;
    }
    // a key that is taken out is out with the next connection
    lab.is_well().await;
    lab.keys.revoke("ann").unwrap();
    let mut stream = lab.own().await;
    let (_, reply) = ask(&mut stream, r#"{"protocol":1,"command":"echo"}"#).await;
    assert_eq!(reply.error.as_deref(), Some("unknown_key"));
    std::fs::write(lab.keys.path(), "rubbish").unwrap();
    let mut stream = lab.own().await;
    let (_, reply) = ask(&mut stream, r#"{"protocol":1,"command":"echo"}"#).await;
    assert_eq!(
        reply.error.as_deref(),
        Some("unknown_key"),
        "a damaged file lets nobody in"
    );
}

#[tokio::test]
async fn every_call_is_recorded_or_not_carried_out() {
    let lab = Lab::new();
    let mut stream = lab.own().await;
    let secret = r#"{"protocol":1,"command":"echo","arguments":{"text":"a","pass":"hunter2"}}"#;
    ask(&mut stream, secret).await;
    let bad = r#"{"protocol":1,"command":"echo","arguments":{"other":"hunter2"}}"#;
    let (_, reply) = ask(&mut stream, bad).await;
    assert_eq!(reply.error.as_deref(), Some("bad_arguments"));
    let (_, reply) = ask(&mut stream, r#"{"protocol":9,"command":"nope"}"#).await;
    assert_eq!(reply.error.as_deref(), Some("unknown_command"));
    assert!(reply.message.contains("echo"), "{}", reply.message);
    // one that leaves in the middle of its answer
    let mut leaving = lab.own().await;
    let long = format!(
        r#"{{"protocol":1,"command":"echo","arguments":{{"text":"{}"}}}}"#,
        "x".repeat(16_000)
    );
    send(&mut leaving, &long).await;
    leaving.read_u8().await.expect("the answer has begun");
    drop(leaving);
    tokio::time::timeout(Duration::from_secs(30), async {
        while lab.records.called.lock().unwrap().len() < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("all four are recorded");
    {
        let called = lab.records.called.lock().unwrap();
        assert_eq!(called[0].arguments, "pass=***&text=a");
        assert_eq!(called[0].outcome, Some(Ok(())));
        assert_eq!(called[0].key_name, "ann");
        assert_eq!(called[1].arguments, "other=***");
        assert_eq!(called[1].outcome, Some(Err("bad_arguments".to_owned())));
        assert_eq!(called[2].command, "nope");
    }
    *lab.records.full.lock().unwrap() = true;
    let (data, reply) = ask(&mut stream, secret).await;
    assert_eq!(reply.error.as_deref(), Some("not_recorded"));
    assert!(
        data.is_empty() && reply.message.contains("nothing was done"),
        "{reply:?}"
    );
}

#[tokio::test]
async fn slow_ones_are_given_up_and_hold_nobody_up() {
    let lab = Lab::new();
    // Nothing at all, half a hello, and half a request of somebody who is known.
    let silent = TcpStream::connect(lab.address).await.unwrap();
    let mut half = TcpStream::connect(lab.address).await.unwrap();
    half.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    let mut known = lab.own().await;
    known.write_all(&[0, 0, 0, 40, 1, b'{']).await.unwrap();
    known.flush().await.unwrap();
    lab.is_well().await;
    for mut stream in [silent, half] {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(90), stream.read_to_end(&mut rest));
        _ = ended.await.expect("it ends");
    }
    lab.is_well().await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(90), known.read_to_end(&mut rest)).await;
    assert!(
        ended.expect("it ends").is_err() || rest.is_empty(),
        "{rest:?}"
    );
    lab.is_well().await;
    // It was no request, so there is no record of one.
    let called = lab.records.called.lock().unwrap();
    assert!(
        called
            .iter()
            .all(|it| it.command == "echo" || it.command == "ping")
    );
}
