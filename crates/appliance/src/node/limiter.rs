//! The rate limiter of a node, if its settings have one. On several nodes they count together: who
//! takes part, gossip tells, and the certificates are those of the nodes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sallyport_wire::node_control::name_of;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::database::Fatal;
use super::settings::RateLimitSection;
use super::state::State;
use crate::node_control::{Refusals, Tls, recognise};
use crate::rate_limit::{Config, ConfigError, Members, Peer, Peers, RateLimit, StartError};

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum LimiterError {
    /// Its bucket configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its listener.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The bucket configuration lists nodes.
    #[error(
        "{}: the nodes that count together are those of the cluster, as they come and go; remove \
         the section cluster (answer_ms belongs to [rate_limit] of the node's settings)",
        .0.display()
    )]
    Listed(PathBuf),
    /// The file that keeps slow buckets.
    #[error("{}: {source}", .path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
}

/// A rate limiter and who tells it of the others.
pub(super) struct Limiter {
    running: RateLimit,
    members: watch::Sender<Members>,
}

impl Limiter {
    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.running.address()
    }
}

/// Starts it, with the bucket configuration that the section names. `tls` is there on several nodes.
///
/// # Errors
/// See [`LimiterError`].
pub(super) fn start(
    state: &Arc<State>,
    section: &RateLimitSection,
    tls: Option<&Tls>,
) -> Result<Limiter, LimiterError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |it| it.as_millis());
    let config = Config::load(&section.conf, u64::try_from(now).unwrap_or(0))?;
    if tls.is_some() && config.cluster.is_some() {
        return Err(LimiterError::Listed(section.conf.clone()));
    }
    let port = sallyport_contract::entry("rate_limit").port().get();
    let host = config.hostname.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = section
        .listen
        .unwrap_or_else(|| SocketAddr::new(host, config.port.unwrap_or(port)));
    let members = watch::Sender::new(members(state));
    let peers = tls.map(|tls| peers(state, section, tls, members.subscribe()));
    let mut running = RateLimit::start(
        config,
        section.conf.clone(),
        address,
        "rate_limit.listen",
        peers,
    )?;
    let path = state.settings.data.join("rate_limit.buckets");
    running
        .keep_in(path.clone())
        .map_err(|source| LimiterError::Snapshot { path, source })?;
    let bound = running.address();
    let advertised = section.advertise.unwrap_or(match bound.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(state.address.ip(), bound.port()),
        _ => bound,
    });
    if tls.is_some() {
        state.rate_limit.send_replace(Some(advertised));
    }
    info!(address = %bound, "rate limiter started");
    Ok(Limiter { running, members })
}

/// Lets it run until `stop`, and tells it of nodes that come and go.
pub(super) async fn keep(
    state: Arc<State>,
    limiter: Limiter,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    let (mut live, mut roster) = (state.live.subscribe(), state.roster.subscribe());
    let mut duty = state.duty.subscribe();
    loop {
        let now = members(&state);
        limiter.members.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        tokio::select! {
            () = stop.cancelled() => break,
            _ = live.changed() => {}
            _ = roster.changed() => {}
            _ = duty.changed() => {}
        }
    }
    state.rate_limit.send_replace(None);
    limiter.running.stop().await;
    Ok(())
}

/// The nodes that are there and whose rate limiters take keys.
fn members(state: &State) -> Members {
    let live = state.live();
    let others = state.members().into_iter().filter_map(|member| {
        let address = live.get(&member.id)?.rate_limit?;
        let peer = Peer {
            host: address.ip().to_string(),
            port: address.port(),
            certified: name_of(&member.id.to_string()),
        };
        (member.id != state.identity.id).then_some((member.name, peer))
    });
    Members {
        here: state.counts_here(),
        others: others.collect(),
        revision: state.roster().revision,
    }
}

fn peers(
    state: &Arc<State>,
    section: &RateLimitSection,
    tls: &Tls,
    members: watch::Receiver<Members>,
) -> Peers {
    let (accept, dial) = tls.limits.clone();
    let (known, refusals) = (Arc::clone(state), Refusals::default());
    Peers {
        node: state.identity.name.clone(),
        members,
        accept,
        dial,
        admits: Arc::new(move |certificate| {
            let found = recognise(&known.roster(), certificate);
            found.map(|_| ()).map_err(|stranger| {
                let why = stranger.to_string();
                refusals.note("rate_limit", &why);
                why
            })
        }),
        answer_within: Duration::from_millis(section.answer_ms.into()),
    }
}
