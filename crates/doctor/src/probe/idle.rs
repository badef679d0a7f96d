//! How long the way keeps a connection on which nothing is said.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sallyport_contract::Flow;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Options, all, millis, proxy, resolve, tcp};
use crate::check::{Check, Target};
use crate::judge::{Fate, judge_idle};
use crate::report::Outcome;
use crate::seen::Resolution;

/// Connections of one check, each silent for half as long as the one before.
const PAUSES_MAX: usize = 6;
/// How long the probes at the end of a silence may take: four of a second each, and some room.
const PROBE: Duration = Duration::from_secs(7);

/// Keeps silent connections to every check over TCP for up to `longest`, and says which of them
/// were still there. Takes that long, plus the limits of `options`.
pub async fn idle(
    checks: Vec<Check>,
    options: Options,
    longest: Duration,
    progress: impl FnMut(&Outcome),
) -> Vec<Outcome> {
    let is_tcp = |check: &Check| matches!(&check.flow, Flow::Port(port) if port.to_string().ends_with("/tcp"));
    let checks = checks.into_iter().filter(is_tcp).collect();
    all(
        checks,
        options,
        progress,
        move |check, options| async move {
            let began = Instant::now();
            let fates = Box::pin(pauses(&check, &options, longest)).await;
            Outcome {
                verdict: judge_idle(&check, &fates),
                check,
                took_ms: millis(began),
                untrusted_issuer: None,
            }
        },
    )
    .await
}

/// What became of connections that were silent for `longest`, half of it, and so on; longest first.
async fn pauses(check: &Check, options: &Options, longest: Duration) -> Vec<(Duration, Fate)> {
    let (target, port) = match &check.via {
        Some(via) => match via.host.parse() {
            Ok(address) => (Target::Address(address), via.port),
            Err(_) => (Target::Name(via.host.clone()), via.port),
        },
        None => (check.target.clone(), check.port()),
    };
    let address: Option<IpAddr> = match &target {
        Target::Address(address) => Some(*address),
        Target::Name(name) => match resolve::resolve(name, options.limit).await {
            Resolution::Addresses(addresses) => addresses.first().copied(),
            _ => None,
        },
    };
    let Some(address) = address else {
        return vec![(longest, Fate::Unreached)];
    };
    let address = SocketAddr::new(address, port);
    let mut running = JoinSet::new();
    let mut pause = longest;
    for _ in 0..PAUSES_MAX {
        let (check, options) = (check.clone(), options.clone());
        running.spawn(async move { (pause, fate(&check, &options, address, pause).await) });
        pause /= 2;
        if pause < Duration::from_secs(1) {
            break;
        }
    }
    let mut fates = running.join_all().await;
    fates.sort_by_key(|(pause, _)| std::cmp::Reverse(*pause));
    fates
}

async fn fate(check: &Check, options: &Options, address: SocketAddr, pause: Duration) -> Fate {
    let Ok(mut stream) = tcp::connect(address, options.limit, None).await else {
        return Fate::Unreached;
    };
    if let Some(via) = &check.via
        && proxy::open(&mut stream, via, check, options.limit)
            .await
            .is_err()
    {
        return Fate::Unreached;
    }
    let began = Instant::now();
    if let Some(fate) = ended(&mut stream, pause).await {
        return match fate {
            Fate::Closed(_) => Fate::Closed(began.elapsed()),
            other => other,
        };
    }
    // an acknowledgement is asked for, which says nothing to the program at the far end
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    if SockRef::from(&stream).set_tcp_keepalive(&probes).is_err() {
        return Fate::Unreached;
    }
    match ended(&mut stream, PROBE).await {
        // closed in order only now: it was there
        None | Some(Fate::Closed(_)) => Fate::Kept,
        Some(other) => other,
    }
}

/// How the connection ends within `span`, if it does. What the far end says is passed over.
async fn ended(stream: &mut TcpStream, span: Duration) -> Option<Fate> {
    let mut buffer = [0; 512];
    let end = async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return Fate::Closed(Duration::ZERO),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Fate::Vanished,
                Err(_) => return Fate::Reset,
            }
        }
    };
    timeout(span, end).await.ok()
}
