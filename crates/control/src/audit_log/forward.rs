//! The whole log as syslog to a collector: RFC 5424 over TCP (octet-counted), TLS or UDP.
//!
//! Syslog has no acknowledgement. Over TCP a record counts as delivered when the connection still
//! stands a while after it was written; after a broken connection everything since is sent again.
//! Over UDP every datagram is sent once; `sequenceId` shows the collector what it missed.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use sallyport_runtime::{dial, tls};
use sallyport_wire::audit_log::{Element, Message, octet_counted, sequence};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Audit;
use super::database::{Range, Stored};
use super::destinations::{self, Attempt};
use super::error::LogFailure;
use super::form::{members, syslog_text};
use super::log::now_ms;
use super::settings::{Forward, Transport};
use super::webhook::pause;

/// Records that are read at a time.
const PAGE: usize = 200;
/// For connecting, the handshake, and each write.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a connection must stand after a write for it to count as delivered.
const SETTLE: Duration = Duration::from_secs(5);
/// Between two looks at what has settled.
const TICK: Duration = Duration::from_secs(1);
/// Text of a datagram, bytes; longer ones are cut, and say so.
const DATAGRAM_TEXT_BYTES_MAX: usize = 60_000;
/// Datagrams sent at once, and the pause after them, so that buffers on the way keep up.
const BURST: usize = 20;
const BURST_PAUSE: Duration = Duration::from_millis(10);
/// Facility "log audit".
const FACILITY: u8 = 13;

/// Forwards until `stop`.
pub(super) async fn forward(audit: Audit, to: Forward, stop: CancellationToken) {
    let mut failures = 0_u32;
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = run(&audit, &to, &mut failures) => ended,
        };
        match ended {
            Error::Log(LogFailure::Closed) => return stop.cancelled().await,
            Error::Log(error) => error!(%error, to = to.to, "the audit log cannot be read"),
            Error::Away(reason) => {
                if failures == 0 {
                    warn!(
                        to = to.to,
                        reason, "the collector of the audit log is not reachable"
                    );
                }
                note(&audit, &to, 0, Some(reason)).await;
            }
        }
        failures = failures.saturating_add(1);
        let mut dice = [0; 2];
        // without randomness the pause is the longest, which is as good
        _ = getrandom::fill(&mut dice);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause(failures, u16::from_le_bytes(dice)).min(Duration::from_secs(60))) => {}
        }
    }
}

enum Error {
    Log(LogFailure),
    Away(String),
}

impl From<LogFailure> for Error {
    fn from(failure: LogFailure) -> Error {
        Error::Log(failure)
    }
}

fn away(error: impl ToString) -> Error {
    Error::Away(error.to_string())
}

fn name(to: &Forward) -> String {
    format!("forward:{}", to.to)
}

/// Notes how far the collector is; 0 keeps the place and only notes the attempt.
async fn note(audit: &Audit, to: &Forward, next: u64, problem: Option<String>) {
    let attempt = Attempt {
        at_ms: Some(now_ms()),
        code: None,
        succeeded: problem.is_none(),
        message: problem,
    };
    let name = name(to);
    let noted = audit
        .log
        .write(move |tx| destinations::set_delivery(tx, &name, next, &attempt));
    if let Err(error) = noted.await {
        warn!(%error, to = to.to, "the place of a collector could not be noted");
    }
}

async fn run(audit: &Audit, to: &Forward, failures: &mut u32) -> Error {
    let name = name(to);
    let stored = audit
        .log
        .read(move |conn| destinations::delivery(conn, &name));
    let next = match stored.await {
        Ok(stored) => stored.map_or(1, |(next, _)| next.max(1)),
        Err(failure) => return failure.into(),
    };
    let ended = match to.by {
        Transport::Udp => datagrams(audit, to, next).await,
        Transport::Tcp | Transport::Tls => connect(audit, to, next, failures).await,
    };
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

enum Never {}

async fn connect(
    audit: &Audit,
    to: &Forward,
    next: u64,
    failures: &mut u32,
) -> Result<Never, Error> {
    let stream = dial("audit_log.forward", &to.host, to.port, STEP_TIME_MAX).await;
    let stream = stream.map_err(away)?;
    match &to.tls {
        None => stream_records(audit, to, next, stream, failures).await,
        Some(config) => {
            let handshake = tls::connect(config.clone(), &to.host, stream);
            let stream = timeout(STEP_TIME_MAX, handshake).await.map_err(away)?;
            stream_records(audit, to, next, stream.map_err(away)?, failures).await
        }
    }
}

async fn stream_records<S: AsyncRead + AsyncWrite>(
    audit: &Audit,
    to: &Forward,
    mut next: u64,
    stream: S,
    failures: &mut u32,
) -> Result<Never, Error> {
    info!(to = to.to, from_record = next, "the audit log is forwarded");
    let (mut read, mut write) = tokio::io::split(stream);
    let mut head = audit.log.watch();
    // what was written, and when
    let mut unsettled: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut ignored = [0; 512];
    loop {
        let now = Instant::now();
        let mut settled = None;
        while let Some((_, seq)) = unsettled.front().filter(|(at, _)| *at + SETTLE <= now) {
            settled = Some(*seq);
            unsettled.pop_front();
        }
        if let Some(settled) = settled {
            *failures = 0;
            note(audit, to, settled + 1, None).await;
        }
        let page = audit.log.records(Range::after(next - 1, PAGE)).await?;
        let Some(last) = page.last().map(|record| record.seq) else {
            tokio::select! {
                newer = head.wait_for(|seq| *seq >= next) => {
                    _ = newer.map_err(|_| LogFailure::Closed)?;
                }
                () = sleep(TICK), if !unsettled.is_empty() => {}
                closed = read.read(&mut ignored) => closed_or_not(closed)?,
            }
            continue;
        };
        let frames: Vec<u8> = page
            .iter()
            .flat_map(|record| octet_counted(&message(audit, to, record).render()))
            .collect();
        let sending = async {
            write.write_all(&frames).await?;
            write.flush().await
        };
        tokio::pin!(sending);
        let limit = sleep(STEP_TIME_MAX);
        tokio::pin!(limit);
        loop {
            tokio::select! {
                sent = &mut sending => break sent.map_err(away)?,
                closed = read.read(&mut ignored) => closed_or_not(closed)?,
                () = &mut limit => return Err(away("it takes nothing")),
            }
        }
        unsettled.push_back((Instant::now(), last));
        next = last + 1;
    }
}

fn closed_or_not(read: io::Result<usize>) -> Result<(), Error> {
    match read {
        Ok(0) => Err(away("it closed the connection")),
        Ok(_) => Ok(()),
        Err(error) => Err(away(error)),
    }
}

async fn datagrams(audit: &Audit, to: &Forward, mut next: u64) -> Result<Never, Error> {
    let socket = sallyport_runtime::dial_datagrams("audit_log.forward", &to.host, to.port).await;
    let socket = socket.map_err(away)?;
    let mut head = audit.log.watch();
    loop {
        let page = audit.log.records(Range::after(next - 1, BURST)).await?;
        let Some(last) = page.last().map(|record| record.seq) else {
            let newer = head.wait_for(|seq| *seq >= next).await;
            newer.map_err(|_| LogFailure::Closed)?;
            continue;
        };
        for record in &page {
            let mut message = message(audit, to, record);
            if message.text.len() > DATAGRAM_TEXT_BYTES_MAX {
                let end = message.text.floor_char_boundary(DATAGRAM_TEXT_BYTES_MAX);
                message.text.truncate(end);
                message.data[0]
                    .params
                    .push(("cut".to_owned(), "true".to_owned()));
            }
            socket.send(&message.render()).await.map_err(away)?;
        }
        next = last + 1;
        note(audit, to, next, None).await;
        sleep(BURST_PAUSE).await;
    }
}

/// A record as a syslog message.
fn message(audit: &Audit, to: &Forward, record: &Stored) -> Message {
    let members = members(record);
    let severity = members
        .get("severity")
        .and_then(|it| it.as_u64())
        .unwrap_or(0);
    let cycle = u64::from(sequence::SEQUENCE_MAX);
    let number = (record.seq - 1) % cycle + 1;
    Message {
        facility: FACILITY,
        severity: match severity {
            0..=1 => 6,
            2..=4 => 5,
            5..=7 => 4,
            8..=9 => 3,
            _ => 2,
        },
        timestamp: members
            .get("event_ts")
            .and_then(|it| it.as_str())
            .map(str::to_owned),
        hostname: Some(audit.host.to_string()),
        app_name: Some("sallyport".to_owned()),
        procid: None,
        msgid: Some(record.kind.name().to_owned()),
        data: vec![Element {
            id: "meta".to_owned(),
            params: vec![("sequenceId".to_owned(), number.to_string())],
        }],
        text: syslog_text(to.format, audit.log.key(), record),
    }
}
