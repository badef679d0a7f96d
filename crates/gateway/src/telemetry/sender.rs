//! The task that sends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use sallyport_runtime::backoff;
use sallyport_runtime::forward_proxy::Way;
use sallyport_wire::telemetry::{self as wire, BATCH_HEADER, BatchId};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::buffer::{BYTES_MAX, Buffer};
use super::{Counters, Folded, Settings};
use crate::config_sync::{Down, reach};

/// For one batch, from dialling to the end of the answer.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);
/// For what is left at the end.
const LAST_TIME_MAX: Duration = Duration::from_secs(3);
/// Pauses after failures grow up to this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

type Io = TokioIo<TlsStream<Way>>;

/// An open connection.
struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: Pin<Box<Connection<Io, Full<Bytes>>>>,
    /// What it was made with.
    tls: Arc<ClientConfig>,
}

/// How sending a batch ended.
struct Outcome {
    /// The connection, if it can be used again.
    link: Option<Link>,
    answer: Result<Answered, Down>,
}

struct Answered {
    status: StatusCode,
    retry_after: Option<Duration>,
    text: String,
}

type Sending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Sends what comes out of `inbox` until `stop`, then what is left.
pub(crate) async fn run(
    settings: Settings,
    mut inbox: mpsc::Receiver<Folded>,
    counters: Arc<Counters>,
    stop: CancellationToken,
) {
    let settings = Arc::new(settings);
    let mut ticks = interval(settings.flush_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut state = State {
        buffer: Buffer::new(settings.run, settings.records_max, BYTES_MAX, unix_ns()),
        settings,
        counters,
        link: None,
        failures: 0,
        not_before: Instant::now(),
        reason: None,
        dropping: false,
    };
    let mut sending: Option<Sending> = None;
    loop {
        let is_sending = sending.is_some();
        let due = tokio::select! {
            () = stop.cancelled() => break,
            Some(folded) = inbox.recv() => {
                state.add(folded);
                false
            }
            _ = ticks.tick() => true,
            outcome = ended(&mut sending), if is_sending => {
                sending = None;
                state.ended(outcome) && state.buffer.is_behind()
            }
        };
        if due && sending.is_none() && Instant::now() >= state.not_before {
            sending = state.send();
        }
        let waiting = state.buffer.records() as u64;
        state.counters.waiting.store(waiting, Ordering::Relaxed);
    }
    while let Ok(folded) = inbox.try_recv() {
        state.add(folded);
    }
    let rest = async {
        while let Some(current) = sending.take().or_else(|| state.send()) {
            if !state.ended(current.await) {
                break;
            }
        }
    };
    let in_time = timeout(LAST_TIME_MAX, rest).await.is_ok();
    let left = state.buffer.records();
    if left > 0 {
        warn!(
            records = left,
            in_time, "telemetry that nobody took is lost"
        );
    }
}

async fn ended(sending: &mut Option<Sending>) -> Outcome {
    match sending {
        Some(sending) => sending.as_mut().await,
        None => std::future::pending().await,
    }
}

struct State {
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    buffer: Buffer,
    link: Option<Link>,
    failures: u32,
    /// When the next attempt may be made.
    not_before: Instant,
    /// Why nothing is taken, as it was logged.
    reason: Option<String>,
    /// Whether records are being given up, as it was logged.
    dropping: bool,
}

impl State {
    fn add(&mut self, folded: Folded) {
        let dropped = self.buffer.add(folded, unix_ns());
        if dropped.records > 0 {
            self.counters.dropped(dropped.records, dropped.requests);
            if !self.dropping {
                let records_max = self.settings.records_max;
                warn!(
                    records_max,
                    "telemetry waits for too long, the oldest is given up"
                );
            }
            self.dropping = true;
        }
    }

    fn send(&mut self) -> Option<Sending> {
        let untold = self.counters.untold.load(Ordering::Relaxed);
        let batch = self.buffer.next(&self.settings.source, untold)?;
        let (id, body) = (batch.id, Bytes::from(batch.body.clone()));
        let (settings, link) = (self.settings.clone(), self.link.take());
        Some(Box::pin(async move {
            match timeout(SEND_TIME_MAX, post(&settings, link, id, body)).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome {
                    link: None,
                    answer: Err(Down::Timeout {
                        step: "sending telemetry",
                        limit_secs: SEND_TIME_MAX.as_secs(),
                    }),
                },
            }
        }))
    }

    /// Whether the batch was taken.
    fn ended(&mut self, outcome: Outcome) -> bool {
        self.link = outcome.link;
        let (reason, again, retry_after) = match outcome.answer {
            Ok(answered) if answered.status.is_success() => {
                let told = self.buffer.acknowledged();
                self.counters.untold.fetch_sub(told, Ordering::Relaxed);
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
                self.counters.connected.store(true, Ordering::Relaxed);
                if self.reason.take().is_some() || self.dropping {
                    let dropped = self.counters.dropped_requests.load(Ordering::Relaxed);
                    info!(dropped_requests = dropped, "telemetry is taken again");
                }
                (self.failures, self.dropping) = (0, false);
                return true;
            }
            Ok(answered) => {
                let Answered { status, text, .. } = answered;
                // a certificate may be pinned again, all else is for good
                let again = matches!(status.as_u16(), 403 | 408 | 429 | 500 | 502..=504);
                let reason = format!(
                    "answered {status}{}{text}",
                    if text.is_empty() { "" } else { ": " }
                );
                (reason, again, answered.retry_after)
            }
            Err(down) => (down.to_string(), true, None),
        };
        if !again {
            let dropped = self.buffer.refused();
            self.counters.dropped(dropped.records, dropped.requests);
        }
        self.counters.connected.store(false, Ordering::Relaxed);
        let endpoint = format!("{}{}", self.settings.endpoint, self.settings.path);
        match self.reason.as_deref() == Some(&reason) {
            true => debug!(endpoint, reason, "telemetry is still not taken"),
            false if again => warn!(endpoint, reason, "telemetry is not taken, it waits"),
            false => warn!(endpoint, reason, "telemetry is refused and given up"),
        }
        self.reason = Some(reason);
        self.failures = self.failures.saturating_add(1);
        let mut dice = [0; 2];
        // without randomness the pause is the shortest, which is as good
        _ = getrandom::fill(&mut dice);
        let pause = backoff::pause(self.failures, u16::from_le_bytes(dice), PAUSE_MAX);
        let pause = pause.max(retry_after.unwrap_or_default().min(PAUSE_MAX));
        self.not_before = Instant::now() + pause;
        false
    }
}

/// Sends a batch: on the connection that is there, or on a new one if that was lost meanwhile or
/// another certificate is to be shown.
async fn post(settings: &Settings, link: Option<Link>, id: BatchId, body: Bytes) -> Outcome {
    let tls = settings.tls.current();
    if let Some(link) = link.filter(|link| Arc::ptr_eq(&link.tls, &tls)) {
        let outcome = exchange(settings, link, id, body.clone()).await;
        if outcome.answer.is_ok() {
            return outcome;
        }
    }
    match open(settings, tls).await {
        Ok(link) => exchange(settings, link, id, body).await,
        Err(down) => Outcome {
            link: None,
            answer: Err(down),
        },
    }
}

async fn open(settings: &Settings, tls: Arc<ClientConfig>) -> Result<Link, Down> {
    let stream = reach("telemetry", settings.place(tls.clone())).await?;
    let opened = handshake(TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(|error| Down::upgrade(&error, &settings.tls_name))?;
    Ok(Link {
        sender,
        connection: Box::pin(connection),
        tls,
    })
}

async fn exchange(settings: &Settings, mut link: Link, id: BatchId, body: Bytes) -> Outcome {
    let request = Request::post(&settings.path)
        .header(HOST, &settings.tls_name)
        .header(CONTENT_TYPE, wire::CONTENT_TYPE)
        .header(USER_AGENT, concat!("sallyport/", env!("CARGO_PKG_VERSION")))
        .header(BATCH_HEADER, id.to_string())
        .body(Full::new(body));
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            return Outcome {
                link: None,
                answer: Err(Down::Upgrade(error.to_string())),
            };
        }
    };
    let (answer, ended) = on(&mut link, request).await;
    let peer = &settings.tls_name;
    let answer = match (answer, &ended) {
        (Ok((head, body)), _) => {
            let seconds = head
                .headers
                .get(RETRY_AFTER)
                .and_then(|it| it.to_str().ok());
            let seconds = seconds.and_then(|it| it.parse().ok());
            let body = body.as_ref();
            let usable = ended.is_none() && body.is_some();
            let text = body
                .and_then(|body| wire::status_text(body))
                .unwrap_or_default();
            let answered = Answered {
                status: head.status,
                retry_after: seconds.map(Duration::from_secs),
                text: text.chars().filter(|c| !c.is_control()).take(300).collect(),
            };
            return Outcome {
                link: Some(link).filter(|_| usable),
                answer: Ok(answered),
            };
        }
        // the connection knows more (a TLS alert) than the request that was cut off
        (Err(_), Some(Err(error))) => Down::upgrade(error, peer),
        (Err(error), _) => Down::upgrade(&error, peer),
    };
    Outcome {
        link: None,
        answer: Err(answer),
    }
}

type Head = http::response::Parts;

/// The answer to a request, and how the connection ended if it did.
async fn on(
    link: &mut Link,
    request: Request<Full<Bytes>>,
) -> (
    Result<(Head, Option<Bytes>), hyper::Error>,
    Option<Result<(), hyper::Error>>,
) {
    let Link {
        sender, connection, ..
    } = link;
    let answer = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        Ok((head, body.map(|body| body.to_bytes()).ok()))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => (answer, None),
        // an answer may be complete although the connection ended at once
        ended = connection.as_mut() => (answer.await, Some(ended)),
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
