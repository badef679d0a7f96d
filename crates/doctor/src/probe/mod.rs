//! Tries checks over real sockets, within bounds, and notes what it saw.

mod datagram;
mod echo;
mod fetch;
mod idle;
mod proxy;
mod resolve;
mod talk;
mod tcp;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sallyport_runtime::tls::{Identity, ServerTrust};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::check::{Check, Talk, Target};
use crate::judge::judge;
use crate::report::Outcome;
use crate::seen::{Answer, Attempt, CertFault, End, Handshake, Resolution, Seen, Small, Talked};

pub use fetch::{FetchError, Fetched, fetch};
pub use idle::idle;

/// Addresses of one name that are tried; a name may have hundreds.
const ADDRESSES_MAX: usize = 8;
/// Segment sizes of the second tries after silence: always passes, and fits the smallest IPv6 link.
const SMALL_SEGMENTS: [u32; 2] = [536, 1220];

/// How to try.
#[derive(Clone, Debug)]
pub struct Options {
    /// Limit of each step: lookup, connection, handshake, answer.
    pub limit: Duration,
    /// Checks at once, 1 or more.
    pub at_once: usize,
    /// Whom to believe.
    pub trust: ServerTrust,
    /// Whom to believe and who to be, where both ends show certificates; `None` shows no certificate
    /// and expects to be refused.
    pub cluster: Option<(ServerTrust, Identity)>,
}

/// Tries all `checks`, at most `options.at_once` at once, and judges them.
///
/// Each check takes a small multiple of `options.limit` at most. `progress` is told about each one as
/// it ends; the answer is in the order of `checks`. Dropping the future ends all of them.
pub async fn run(
    checks: Vec<Check>,
    options: Options,
    progress: impl FnMut(&Outcome),
) -> Vec<Outcome> {
    all(checks, options, progress, |check, options| async move {
        one(check, &options).await
    })
    .await
}

/// Does `one` for every check, at most `options.at_once` at once.
async fn all<F>(
    checks: Vec<Check>,
    options: Options,
    mut progress: impl FnMut(&Outcome),
    one: impl Fn(Check, Arc<Options>) -> F,
) -> Vec<Outcome>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let options = Arc::new(options);
    let room = Arc::new(Semaphore::new(options.at_once.max(1)));
    let mut running = JoinSet::new();
    for (at, check) in checks.into_iter().enumerate() {
        let room = Arc::clone(&room);
        let outcome = one(check, Arc::clone(&options));
        running.spawn(async move {
            let permit = room.acquire_owned().await;
            let outcome = outcome.await;
            drop(permit);
            (at, outcome)
        });
    }
    let mut outcomes = Vec::with_capacity(running.len());
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((at, outcome)) => {
                progress(&outcome);
                outcomes.push((at, outcome));
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn one(check: Check, options: &Options) -> Outcome {
    let began = Instant::now();
    let seen = Box::pin(look(&check, options)).await;
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |it| it.as_secs());
    let verdict = judge(&check, &seen, i64::try_from(now).unwrap_or(i64::MAX));
    let took_ms = millis(began);
    let untrusted_issuer = seen.attempts.iter().find_map(untrusted);
    Outcome {
        check,
        verdict,
        took_ms,
        untrusted_issuer,
    }
}

fn untrusted(attempt: &Attempt) -> Option<String> {
    match &attempt.end {
        End::Connected(Talked {
            handshake: Some(Handshake::Done(shown)),
            ..
        }) if shown.fault == Some(CertFault::UnknownIssuer) && !shown.self_signed => {
            Some(shown.issuer.clone())
        }
        _ => None,
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn look(check: &Check, options: &Options) -> Seen {
    let (target, port) = match &check.via {
        Some(via) => {
            let address = via.host.parse().map(Target::Address);
            (
                address.unwrap_or_else(|_| Target::Name(via.host.clone())),
                via.port,
            )
        }
        None => (check.target.clone(), check.port()),
    };
    let mut seen = Seen::default();
    let addresses: Vec<IpAddr> = match &target {
        Target::Address(address) => vec![*address],
        Target::Name(name) => {
            let resolution = resolve::resolve(name, options.limit).await;
            let addresses = match &resolution {
                Resolution::Addresses(addresses) => addresses.clone(),
                _ => Vec::new(),
            };
            // A proxy's own name that does not resolve is the check's trouble too.
            if check.via.is_none() || addresses.is_empty() {
                seen.resolution = Some(resolution);
            }
            addresses
        }
    };
    let mut running = JoinSet::new();
    for (at, address) in addresses.into_iter().take(ADDRESSES_MAX).enumerate() {
        let (check, options) = (check.clone(), options.clone());
        running.spawn(async move {
            (
                at,
                attempt(&check, &options, SocketAddr::new(address, port)).await,
            )
        });
    }
    let mut attempts = Vec::new();
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(attempt) => attempts.push(attempt),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    attempts.sort_by_key(|(at, _)| *at);
    seen.attempts = attempts.into_iter().map(|(_, attempt)| attempt).collect();
    seen
}

async fn attempt(check: &Check, options: &Options, address: SocketAddr) -> Attempt {
    let began = Instant::now();
    let udp = matches!(check.flow.to_string().rsplit_once('/'), Some((_, "udp")));
    let end = match &check.talk {
        Talk::Echo => End::Icmp(echo::echo(address.ip(), options.limit).await),
        talk if udp => datagram::ask(talk, address, options.limit).await,
        _ => connected(check, options, address).await,
    };
    Attempt {
        address,
        end,
        took_ms: millis(began),
    }
}

async fn connected(check: &Check, options: &Options, address: SocketAddr) -> End {
    let mut end = try_once(check, options, address, None).await;
    if let End::Connected(talked) = &mut end
        && is_silent(talked)
    {
        talked.small = Some(smaller(check, options, address).await);
    }
    end
}

fn is_silent(talked: &Talked) -> bool {
    matches!(
        talked.handshake,
        Some(Handshake::Silent | Handshake::Stalled)
    ) || talked.answer == Some(Answer::Silent)
}

async fn smaller(check: &Check, options: &Options, address: SocketAddr) -> Small {
    let mut works = Small::SilentToo;
    for bytes in SMALL_SEGMENTS {
        match try_once(check, options, address, Some(bytes)).await {
            End::Connected(talked) if !is_silent(&talked) => works = Small::Works(bytes),
            _ => break,
        }
    }
    works
}

async fn try_once(
    check: &Check,
    options: &Options,
    address: SocketAddr,
    segment_bytes: Option<u32>,
) -> End {
    let mut stream = match tcp::connect(address, options.limit, segment_bytes).await {
        Ok(stream) => stream,
        Err(end) => return end,
    };
    if let Some(via) = &check.via
        && let Err(end) = proxy::open(&mut stream, via, check, options.limit).await
    {
        return end;
    }
    End::Connected(talk::talk(check, options, stream).await)
}
