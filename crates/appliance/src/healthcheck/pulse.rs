//! Each second: can this node serve?

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sallyport_runtime::dial;
use sallyport_store::{NodeRole, Wanted};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::checks::{Verdict, database};
use super::machine::Ticks;
use crate::node::{Fatal, State, Vitals};

const EVERY: Duration = Duration::from_secs(1);
const MINUTE: usize = 60;

/// Measures until `stop`.
pub(crate) async fn pulse(state: Arc<State>, stop: CancellationToken) -> Result<(), Fatal> {
    let mut ticks: VecDeque<Ticks> = VecDeque::new();
    loop {
        if let Some(now) = Ticks::now() {
            ticks.push_back(now);
            if ticks.len() > MINUTE + 1 {
                ticks.pop_front();
            }
        }
        let cpu_percent = match (ticks.front(), ticks.back()) {
            (Some(first), Some(last)) if ticks.len() > 10 => last.busy_since(*first),
            _ => None,
        };
        let answer = database(&state).await;
        let why_not = why_not(&state, &answer.detail, answer.verdict).await;
        let before = state.vitals.borrow().why_not.clone();
        match &why_not {
            Some(why) if Some(why) != before.as_ref() => warn!(why, "this node does not serve"),
            None if before.is_some() => info!("this node serves"),
            _ => {}
        }
        state.vitals.send_replace(Vitals {
            why_not,
            database: answer.verdict != Verdict::Failed,
            cpu_percent,
            at: Some(Instant::now()),
        });
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(EVERY) => {}
        }
    }
}

/// Why this node cannot serve a request; `None` if it can.
async fn why_not(state: &State, database: &str, verdict: Verdict) -> Option<String> {
    if state.identity.role == NodeRole::Witness {
        return Some("a witness serves nothing".to_owned());
    }
    match state.duty() {
        Wanted::Active => {}
        other => return Some(format!("the node is {other}")),
    }
    if verdict == Verdict::Failed {
        return Some(format!("database: {database}"));
    }
    let Some(address) = *state.plane.borrow() else {
        return Some("the control plane does not run".to_owned());
    };
    let to = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()))
        }
        _ => address,
    };
    let dialled = dial("config_sync", &to.ip().to_string(), to.port(), EVERY).await;
    dialled.err().map(|error| error.to_string())
}
