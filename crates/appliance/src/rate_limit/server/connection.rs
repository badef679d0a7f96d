//! One connection: messages in, answers out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sallyport_wire::rate_limit::frame::REQUEST_BYTES_MAX;
use sallyport_wire::rate_limit::{Request, split};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::outbox::Outbox;
use super::waits::{WAITS_MAX, WAITS_OF_CLIENT_MAX, Waits};
use super::{STALL_MAX, Shared};
use crate::rate_limit::cluster::Why;

/// Bytes read at once, at first and from a peer that keeps the buffer full.
const READ_BYTES: std::ops::RangeInclusive<usize> = 4 * 1024..=64 * 1024;
/// Answers from other nodes that one connection may be owed; then it is not read from.
const OWED_MAX: usize = 4_096;
/// A buffer that has grown above this is let go when it is empty.
const KEPT_BYTES_MAX: usize = 128 * 1024;

/// How long the end of a TLS connection may take to be written.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// A limitd client.
    Client,
    /// Another node, for keys that it takes for this one's.
    Node,
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Ended {
    /// The peer closed it.
    Closed,
    /// The system reported so.
    Lost(io::Error),
    /// What came is no message.
    Bad(String),
    /// A message did not end, or nobody took the answers.
    Slow,
}

/// Serves until the peer closes, sends what is no message, stalls, or `stop`. `input` holds what
/// was read already.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    input: Vec<u8>,
    asking: Asking,
    shared: &Shared,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let most = match asking {
        Asking::Client => WAITS_OF_CLIENT_MAX,
        // on behalf of all its clients
        Asking::Node => WAITS_MAX,
    };
    let mut connection = Connection {
        shared,
        asking,
        stream,
        input,
        out: Vec::new(),
        waits: Waits::new(
            &shared.limits,
            shared.redis.as_deref(),
            &shared.waiting,
            most,
        ),
        outbox: Arc::default(),
    };
    connection.run(stop).await
}

struct Connection<'a, S> {
    shared: &'a Shared,
    asking: Asking,
    stream: S,
    input: Vec<u8>,
    out: Vec<u8>,
    waits: Waits<'a>,
    outbox: Arc<Outbox>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<(), Ended> {
        let never = Instant::now() + Duration::from_secs(u32::MAX.into());
        let mut message_due = None;
        let mut read_bytes = *READ_BYTES.start();
        loop {
            let answered = self.answer();
            self.answer_back();
            for (wait, ms, body) in self.outbox.waits() {
                self.waits.add_taken(wait, ms, body);
            }
            self.waits.answer(&mut self.out);
            self.outbox.drain(&mut self.out);
            self.flush().await?;
            // The peer gets what its good messages asked for, then the end.
            if answered? || self.input.is_empty() {
                message_due = None;
            }
            if !self.input.is_empty() {
                message_due = message_due.or_else(|| Some(Instant::now() + STALL_MAX));
            }
            let wait_due = self.waits.next_due();
            let reads = self.outbox.owed() < OWED_MAX;
            self.input.reserve(read_bytes);
            tokio::select! {
                read = self.stream.read_buf(&mut self.input), if reads => {
                    let read = read?;
                    if read == 0 {
                        return Err(Ended::Closed);
                    }
                    if read >= read_bytes {
                        read_bytes = (2 * read_bytes).min(*READ_BYTES.end());
                    }
                }
                () = self.outbox.ready() => {}
                () = sleep_until(wait_due.unwrap_or(never)), if wait_due.is_some() => {}
                () = sleep_until(message_due.unwrap_or(never)), if reads && message_due.is_some() => {
                    return Err(Ended::Slow);
                }
                () = stop.cancelled() => {
                    // Says goodbye where TLS has a word for it.
                    _ = timeout(GOODBYE_MAX, self.stream.shutdown()).await;
                    return Ok(());
                }
            }
        }
    }

    /// Answers the whole messages of the input; says whether there was one.
    fn answer(&mut self) -> Result<bool, Ended> {
        let mut done = 0;
        if self.input.is_empty() {
            return Ok(false);
        }
        // Once for the batch: what came together counts as asked at the same time.
        let types = self.shared.limits.types();
        let now = self.shared.limits.now();
        let end = loop {
            let frame = match split(&self.input[done..], REQUEST_BYTES_MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(done > 0),
                Err(error) => break Err(Ended::Bad(error.to_string())),
            };
            done += frame.bytes;
            if frame.body.is_empty() {
                continue;
            }
            let mut request = match Request::decode(frame.body) {
                Ok(request) => request,
                Err(error) => break Err(Ended::Bad(error.to_string())),
            };
            let batch = Batch {
                types: &types,
                now,
                shared: self.shared,
                outbox: &self.outbox,
            };
            match self.asking {
                Asking::Client => {
                    request.lease = 0; // among nodes only
                    batch.route(&request, &mut self.waits, &mut self.out);
                }
                Asking::Node => batch.here(request, &mut self.waits, &mut self.out),
            }
        };
        self.input.drain(..done);
        if self.input.is_empty() && self.input.capacity() > KEPT_BYTES_MAX {
            self.input = Vec::new();
        }
        end
    }

    /// Answers what came back from other nodes without an answer.
    fn answer_back(&mut self) {
        let back = self.outbox.back();
        if back.is_empty() {
            return;
        }
        let types = self.shared.limits.types();
        let batch = Batch {
            types: &types,
            now: self.shared.limits.now(),
            shared: self.shared,
            outbox: &self.outbox,
        };
        for (request, why) in back {
            match why {
                Why::Gone => batch.route(&request.get(), &mut self.waits, &mut self.out),
                Why::Silent => batch.by_policy(request.get(), &mut self.waits, &mut self.out),
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.out.is_empty() {
            return Ok(());
        }
        let written = async {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await
        };
        match timeout(STALL_MAX, written).await {
            Err(_) => return Err(Ended::Slow),
            Ok(written) => written?,
        }
        self.out.clear();
        if self.out.capacity() > KEPT_BYTES_MAX {
            self.out = Vec::new();
        }
        Ok(())
    }
}
