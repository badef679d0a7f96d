//! A webhook receiver with every bad habit: down, slow, forgetful, refusing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::read::GzDecoder;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What it does with a request that it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Answers 202.
    Good,
    /// Takes the records and answers 500, so that it gets them again.
    Duplicating,
    /// Takes the records and closes without an answer.
    Silent,
    /// Takes the records and answers only when the habit changes.
    Slow,
    /// Answers 413 to more than this many records.
    Small(usize),
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) head: String,
    pub(super) lines: Vec<String>,
}

#[derive(Default)]
struct Shared {
    habit: Option<Habit>,
    taken: Vec<Delivery>,
    stopped: bool,
}

/// A receiver that listens until it is dropped.
pub(super) struct Receiver {
    pub(super) port: u16,
    shared: Arc<Mutex<Shared>>,
    accepting: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens on this port of loopback (0: a free one), over TLS if there is a configuration.
    pub(super) fn start(port: u16, habit: Habit, tls: Option<Arc<ServerConfig>>) -> Receiver {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new(Shared {
            habit: Some(habit),
            ..Shared::default()
        }));
        let own = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.lock().unwrap().stopped {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (own, tls) = (Arc::clone(&own), tls.clone());
                // ends with its connection, which the product bounds
                std::thread::spawn(move || match tls {
                    None => serve(stream, &own),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).unwrap();
                        serve(StreamOwned::new(connection, stream), &own);
                    }
                });
            }
        });
        Receiver {
            port,
            shared,
            accepting: Some(accepting),
        }
    }

    pub(super) fn set(&self, habit: Habit) {
        self.shared.lock().unwrap().habit = Some(habit);
    }

    pub(super) fn taken(&self) -> Vec<Delivery> {
        self.shared.lock().unwrap().taken.clone()
    }

    /// Every line that it got, whatever it answered.
    pub(super) fn lines(&self) -> Vec<String> {
        self.taken().into_iter().flat_map(|it| it.lines).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.lock().unwrap().stopped = true;
        // wakes the accepting thread, so that the port is free again
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }
}

fn serve(stream: impl Read + Write, shared: &Mutex<Shared>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line), Ok(1..)) {
            return;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).is_err() {
        return;
    }
    let mut text = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let count = lines.len();
    let habit = {
        let mut shared = shared.lock().unwrap();
        let habit = shared.habit.unwrap();
        if !matches!(habit, Habit::Small(max) if count > max) {
            shared.taken.push(Delivery { head, lines });
        }
        habit
    };
    let status = match habit {
        Habit::Good => "202 Accepted",
        Habit::Small(max) if count <= max => "202 Accepted",
        Habit::Small(_) => "413 Content Too Large",
        Habit::Duplicating => "500 Internal Server Error",
        Habit::Silent => return,
        Habit::Slow => {
            let changed = || {
                let shared = shared.lock().unwrap();
                shared.stopped || shared.habit != Some(Habit::Slow)
            };
            sallyport_testkit::eventually("the receiver answers", crate::lab::soon(), changed);
            "202 Accepted"
        }
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    // the sender may have given up
    _ = stream.get_mut().write_all(answer.as_bytes());
    _ = stream.get_mut().flush();
}
