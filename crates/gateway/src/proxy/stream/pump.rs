//! Bytes both ways until both sides have said all.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::silence::Silence;
use super::super::tunnel::{TunnelError, Way};

/// Moves bytes until both sides have ended, one side fails, or nothing moves for `limit`.
///
/// The end of what one side says is passed on, and the other side may go on: a client that ends
/// its half still gets its answer. (nginx closes both, unless `proxy_half_close` is on.)
/// `received` and `sent` count what the client sent and got.
pub(super) async fn pump<C, U>(
    client: &mut C,
    upstream: &mut U,
    limit: Duration,
    (received, sent): (&Cell<u64>, &Cell<u64>),
) -> Result<(), TunnelError>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut silence = Silence::new();
    let (mut out, mut back) = (Half::default(), Half::default());
    poll_fn(|cx| {
        let answer = back.poll(upstream, client, &mut silence, cx);
        let question = out.poll(client, upstream, &mut silence, cx);
        received.set(out.way.moved);
        sent.set(back.way.moved);
        match (question, answer) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                Poll::Ready(Err(TunnelError::Io(error)))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => silence
                .poll(limit, cx)
                .map(|()| Err(TunnelError::Silent(limit))),
        }
    })
    .await
}

/// One direction, its end included.
#[derive(Default)]
struct Half {
    way: Way,
    moved_all: bool,
    told_end: bool,
}

impl Half {
    fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        from: &mut R,
        to: &mut W,
        silence: &mut Silence,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.moved_all {
            ready!(self.way.poll(from, to, silence, cx))?;
            self.moved_all = true;
            silence.broken();
        }
        if !self.told_end {
            match ready!(Pin::new(to).poll_shutdown(cx)) {
                Ok(()) => {}
                // whoever has gone altogether needs to hear no end
                Err(error) if error.kind() == std::io::ErrorKind::NotConnected => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            self.told_end = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_side_that_has_ended_still_gets_its_answer() {
        let (mut client, mut near) = duplex(64);
        let (mut far, mut upstream) = duplex(64);
        let (received, sent) = (Cell::new(0), Cell::new(0));
        let pumping = pump(&mut near, &mut far, LIMIT, (&received, &sent));
        let talking = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut question = String::new();
            upstream.read_to_string(&mut question).await.unwrap();
            upstream.write_all(b"the answer").await.unwrap();
            upstream.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            (question, answer)
        };
        let (pumped, (question, answer)) = tokio::join!(pumping, talking);
        pumped.unwrap();
        assert_eq!((&*question, &*answer), ("question", "the answer"));
        assert_eq!((received.get(), sent.get()), (8, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_however_half_open_it_is() {
        let (mut client, mut near) = duplex(64);
        let (mut far, mut upstream) = duplex(64);
        let counts = (Cell::new(0), Cell::new(0));
        let pumping = pump(&mut near, &mut far, LIMIT, (&counts.0, &counts.1));
        let talking = async {
            client.write_all(b"x").await.unwrap();
            client.shutdown().await.unwrap();
            let mut question = String::new();
            upstream.read_to_string(&mut question).await.unwrap();
            // and never an answer
        };
        let (pumped, ()) = tokio::join!(pumping, talking);
        assert!(matches!(pumped, Err(TunnelError::Silent(LIMIT))));
    }
}
