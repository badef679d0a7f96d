use std::time::Duration;

use sallyport_plugins::{RedisError, RedisValue};
use sallyport_runtime::tls::{self, ServerTrust};
use sallyport_wire::redis::{Reply, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn links() -> Links {
    let config = tls::client_config(ServerTrust::Anybody, None).unwrap();
    Links::new(&config, &config)
}

fn server(listener: &TcpListener) -> RedisServer {
    RedisServer {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        timeout: Duration::from_secs(10),
        username: None,
        password: None,
        database: 0,
        tls: None,
    }
}

fn command(parts: &[&str]) -> RedisCommand {
    parts.iter().map(|part| part.as_bytes().to_vec()).collect()
}

/// Reads this many commands from a client.
async fn commands(stream: &mut TcpStream, count: usize) -> Vec<String> {
    let (mut bytes, mut found) = (Vec::new(), Vec::new());
    while found.len() < count {
        match decode(&bytes).unwrap() {
            Some((Reply::List(parts), taken)) => {
                let text = |part: &Reply| match part {
                    Reply::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
                    other => panic!("{other:?} in a command"),
                };
                found.push(parts.iter().map(text).collect::<Vec<_>>().join(" "));
                bytes.drain(..taken);
            }
            Some((other, _)) => panic!("{other:?} is no command"),
            None => assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0),
        }
    }
    assert_eq!(bytes, b"");
    found
}

#[tokio::test]
async fn commands_share_a_connection_and_answers_find_who_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (links, server) = (links(), Arc::new(server(&listener)));
    let ask = |name: &str| links.ask(&server, command(&["GET", name]));
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut answers = String::new();
        for asked in commands(&mut stream, 3).await {
            answers.push_str(match asked.as_str() {
                "GET a" => ":1\r\n",
                "GET b" => "$1\r\nx\r\n",
                "GET c" => "-ERR no\r\n",
                other => panic!("{other}"),
            });
        }
        let (one, two) = answers.split_at(9);
        stream.write_all(one.as_bytes()).await.unwrap();
        stream.write_all(two.as_bytes()).await.unwrap();
        // one who does not wait any more leaves the others their answers
        let asked = commands(&mut stream, 3).await;
        assert_eq!(asked, ["GET gone", "SET told", "GET d"]);
        stream.write_all(b":7\r\n:8\r\n:9\r\n").await.unwrap();
        stream
    };
    let asking = async {
        let (a, b, c) = tokio::join!(ask("a"), ask("b"), ask("c"));
        assert_eq!(a, Ok(RedisValue::Integer(1)));
        assert_eq!(b, Ok(RedisValue::Bytes(b"x".to_vec())));
        assert_eq!(c, Err(RedisError::Refused("ERR no".into())));
        let mut gone = ask("gone");
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(gone.as_mut().poll(cx)));
        assert!(polled.await.is_pending());
        drop(gone);
        links.tell(&server, command(&["SET", "told"]));
        assert_eq!(ask("d").await, Ok(RedisValue::Integer(9)));
    };
    tokio::join!(serve, asking);
}

#[tokio::test]
async fn who_has_a_password_logs_in_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (links, mut server) = (links(), server(&listener));
    server.username = Some("kong".to_owned());
    server.password = Some("secret".to_owned());
    server.database = 3;
    let shown = format!("{server:?}");
    assert!(!shown.contains("secret"), "{shown}");
    let server = Arc::new(server);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        for expected in ["AUTH kong secret", "SELECT 3", "PING"] {
            assert_eq!(commands(&mut stream, 1).await, [expected]);
            stream.write_all(b"+OK\r\n").await.unwrap();
        }
        // the second connection is refused
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        commands(&mut stream, 1).await;
        stream.write_all(b"-WRONGPASS no\r\n").await.unwrap();
    };
    let asking = async {
        let ask = || links.ask(&server, command(&["PING"]));
        assert_eq!(ask().await, Ok(RedisValue::Bytes(b"OK".to_vec())));
        let refused = Err(RedisError::Refused("WRONGPASS no".into()));
        assert_eq!(ask().await, refused);
        assert_eq!(ask().await, refused, "it is not dialled again at once");
    };
    tokio::join!(serve, asking);
}

#[tokio::test]
async fn a_connection_that_ended_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (links, server) = (links(), Arc::new(server(&listener)));
    let serve = async {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            commands(&mut stream, 1).await;
            stream.write_all(b":1\r\n").await.unwrap();
        }
    };
    let asking = async {
        for _ in 0..3 {
            let answer = links.ask(&server, command(&["PING"])).await;
            assert_eq!(answer, Ok(RedisValue::Integer(1)));
        }
    };
    tokio::join!(serve, asking);
}

#[tokio::test]
async fn what_speaks_something_else_and_what_is_not_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (links, server) = (links(), Arc::new(server(&listener)));
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        commands(&mut stream, 1).await;
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n")
            .await
            .unwrap();
        drop(listener);
        stream
    };
    let ask = || links.ask(&server, command(&["PING"]));
    let (stream, answer) = tokio::join!(serve, ask());
    assert!(
        matches!(answer, Err(RedisError::Connection(_))),
        "{answer:?}"
    );
    drop(stream);
    assert!(matches!(ask().await, Err(RedisError::Connection(_))));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (links, mut server) = (links(), server(&listener));
    server.timeout = Duration::from_millis(20);
    let answer = links.ask(&Arc::new(server), command(&["PING"])).await;
    assert_eq!(answer, Err(RedisError::Timeout));
}
