use sallyport_wire::rate_limit::frame::REQUEST_BYTES_MAX;
use sallyport_wire::rate_limit::{Body, Method, Request, Response, split};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

async fn listener() -> (TcpListener, (String, u16)) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, ("127.0.0.1".to_owned(), port))
}

fn start(nodes: Vec<(String, u16)>, timeout: Duration) -> Nodes {
    let settings = Settings {
        nodes,
        tls: None,
        timeout,
    };
    let (nodes, counting) = Nodes::new(settings);
    tokio::spawn(run(counting.unwrap(), CancellationToken::new()));
    nodes
}

/// Reads so many questions, and answers them in the opposite order with their keys' lengths.
async fn serve(stream: &mut TcpStream, questions: usize) {
    let (mut input, mut answers) = (Vec::new(), Vec::new());
    while answers.len() < questions {
        assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0);
        let mut done = 0;
        while let Some(frame) = split(&input[done..], REQUEST_BYTES_MAX).unwrap() {
            done += frame.bytes;
            let request = Request::decode(frame.body).unwrap();
            assert_eq!(request.method, Method::Count);
            let windows = Windows::decode(request.windows).unwrap();
            assert_eq!(windows.0[1], Some(5));
            let mut counted = Counted::default();
            counted.used[1] = request.key.len() as u64;
            let mut answer = Vec::new();
            Response::new(request.id, Body::Count(counted)).encode(&mut answer);
            answers.push(answer);
        }
        input.drain(..done);
    }
    answers.reverse();
    stream.write_all(&answers.concat()).await.unwrap();
}

async fn ask(nodes: &Nodes, key: &str) -> Result<u64, CountError> {
    let windows = Windows([None, Some(5), None, None, None, None]);
    let counted = nodes.count(key.as_bytes().to_vec(), windows).await;
    counted.map(|counted| counted.used[1])
}

#[tokio::test]
async fn questions_share_a_connection_and_answers_find_who_asked() {
    let (listener, address) = listener().await;
    let nodes = start(vec![address], Duration::from_secs(20));
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        serve(&mut stream, 3).await;
        stream
    };
    let (a, b, c, _stream) = tokio::join!(
        ask(&nodes, "a"),
        ask(&nodes, "bb"),
        ask(&nodes, "ccc"),
        served
    );
    assert_eq!([a, b, c], [Ok(1), Ok(2), Ok(3)]);
}

#[tokio::test]
async fn the_next_node_is_asked_when_one_goes() {
    let (first, first_address) = listener().await;
    let (second, second_address) = listener().await;
    let nodes = start(vec![first_address, second_address], Duration::from_secs(20));
    let served = async {
        let (mut stream, _) = first.accept().await.unwrap();
        serve(&mut stream, 1).await;
        // it dies with a question on its way
        assert_ne!(stream.read(&mut [0; 9]).await.unwrap(), 0);
    };
    let asked = async {
        assert_eq!(ask(&nodes, "a").await, Ok(1));
        assert!(ask(&nodes, "b").await.is_err());
    };
    tokio::join!(served, asked);
    drop(first);
    let served = async {
        let (mut stream, _) = second.accept().await.unwrap();
        serve(&mut stream, 1).await;
        stream
    };
    let (answer, _stream) = tokio::join!(ask(&nodes, "dddd"), served);
    assert_eq!(answer, Ok(4));
}

#[tokio::test]
async fn nobody_waits_long_for_a_silent_node_or_for_none() {
    let (silent, address) = listener().await;
    let nodes = start(vec![address.clone()], Duration::from_millis(50));
    assert_eq!(ask(&nodes, "a").await, Err(CountError::Timeout));
    drop(silent);
    let nodes = start(vec![address], Duration::from_millis(50));
    assert!(matches!(
        ask(&nodes, "a").await,
        Err(CountError::Unreachable(_))
    ));
    nodes.went_without();
    assert_eq!(nodes.stats().unwrap().without.load(Ordering::Relaxed), 1);
}
