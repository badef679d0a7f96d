//! Start and end of a node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sallyport_runtime::{ListenError, ListenOptions, listen};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::accepts;
use super::database::{Fatal, follow, has_database};
use super::identity::{Identity, IdentityError, MemberFile};
use super::limiter::{self, LimiterError};
use super::local::{Local, LocalError};
use super::plane::Plane;
use super::settings::{Settings, SettingsError};
use super::state::State;
use super::work::reconcile;
use crate::healthcheck::{self, Secured};
use crate::node_control::{
    Door, HEARD_MAX, Tls, alone, execute, follow_leader, lead, membership, serve, settle_own,
};

/// For a node to stop.
const GRACE: Duration = Duration::from_secs(15);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Its identity or what it keeps.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The socket for this machine's operators.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Its rate limiter.
    #[error(transparent)]
    Limiter(#[from] LimiterError),
    /// A witness that does not know any node.
    #[error(
        "a witness learns of the other nodes from its disk and from them, and {} is gone: bring it \
         back, or remove this node on another one and join with an empty data directory", path.display()
    )]
    NoRoster {
        /// The file.
        path: PathBuf,
    },
    /// The certificate of health.
    #[error("healthcheck.certificate cannot be used: {0}")]
    HealthcheckTls(String),
    /// Its certificate.
    #[error("the node's certificate cannot be used: {0}")]
    Tls(String),
}

/// A node that runs.
pub struct Node {
    /// What it knows.
    pub state: Arc<State>,
    parts: JoinSet<(&'static str, Result<(), Fatal>)>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.state.identity.name)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Starts the node whose identity is in the data directory of `settings`.
    ///
    /// It serves health at once; the database is reached when it is there.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn start(settings: Settings, plane: Arc<dyn Plane>) -> Result<Node, StartError> {
        let identity = Identity::load(&settings.data)?;
        let clustered = settings.database.is_some() || !has_database(identity.role);
        let address = match clustered {
            true => settings.advertised()?,
            false => settings.node_control.listen,
        };
        let roster = MemberFile::of(&settings.data);
        let path = roster.path().to_owned();
        let roster = roster.load()?;
        if !has_database(identity.role) && roster.members.is_empty() {
            return Err(StartError::NoRoster { path });
        }
        let state = Arc::new(State::new(settings, identity, address, roster)?);
        let local = Local::open(&state, Arc::clone(&plane))?;
        let mut node = Node {
            parts: JoinSet::new(),
            stop: CancellationToken::new(),
            state,
        };
        let state = Arc::clone(&node.state);
        node.part("local", |stop| local.serve(stop));
        if let Some(health) = &state.settings.healthcheck {
            let listener = listen(
                "healthcheck",
                health.listen,
                "healthcheck.listen",
                ListenOptions::default(),
            )?;
            let own = Arc::clone(&state);
            let secured = health.tls.as_ref();
            let secured = secured.map(|(certificate, key)| Secured::open(certificate, key));
            let secured = secured.transpose().map_err(StartError::HealthcheckTls)?;
            node.part("healthcheck", |stop| {
                healthcheck::serve(listener, secured, own, stop)
            });
            let own = Arc::clone(&state);
            node.part("samples", |stop| healthcheck::sample(own, stop));
        }
        let own = Arc::clone(&state);
        node.part("pulse", |stop| healthcheck::pulse(own, stop));
        let tls = match clustered {
            true => Some(Tls::of(&state.identity).map_err(|it| StartError::Tls(it.to_string()))?),
            false => None,
        };
        match &tls {
            None => {
                let own = Arc::clone(&state);
                node.part("membership", |stop| alone(own, stop));
            }
            Some(tls) => {
                _ = state.tls.set(tls.clone()); // this once
                let own = Arc::clone(&state);
                node.part("rotation", |stop| settle_own(own, stop));
                let listener = listen(
                    "node_control",
                    state.settings.node_control.listen,
                    "node_control.listen",
                    ListenOptions::default(),
                )?;
                let (heard, hearing) = mpsc::channel(HEARD_MAX);
                let door = Door::new(&state, Arc::clone(&plane), tls.clone(), heard);
                let door = Arc::new(door);
                node.part("node_control", |stop| serve(listener, door, stop));
                let (own, tls) = (Arc::clone(&state), tls.clone());
                node.part("membership", |stop| membership(own, tls, hearing, stop));
            }
        }
        if has_database(state.identity.role)
            && let Some(section) = &state.settings.rate_limit
        {
            let own = Arc::clone(&state);
            let limiter = limiter::start(&own, section, tls.as_ref())?;
            _ = state.rate_limit_bound.set(limiter.address()); // once for each state
            node.part("rate_limit", |stop| limiter::keep(own, limiter, stop));
        }
        if clustered {
            let (own, plane) = (Arc::clone(&state), Arc::clone(&plane));
            node.part("accepts", |stop| accepts::follow(own, plane, stop));
        }
        if has_database(state.identity.role) {
            let own = Arc::clone(&state);
            node.part("leader", |stop| lead(own, stop));
            let own = Arc::clone(&state);
            node.part("commands", |stop| execute(own, tls, stop));
        } else {
            let own = Arc::clone(&state);
            node.part("leader", |stop| follow_leader(own, stop));
        }
        if has_database(state.identity.role) {
            let (own, plane_of) = (Arc::clone(&state), Arc::clone(&plane));
            node.part("database", |stop| follow(own, plane_of, stop));
            node.part("control_planes", |stop| reconcile(state, plane, stop));
        }
        info!(
            node = node.state.identity.name,
            role = %node.state.identity.role,
            cluster = %node.state.identity.cluster,
            "node started"
        );
        Ok(node)
    }

    fn part<F>(&mut self, name: &'static str, make: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Fatal>> + Send + 'static,
    {
        let part = make(self.stop.clone());
        self.parts.spawn(async move { (name, part.await) });
    }

    /// Waits until the node cannot go on. May be dropped while waiting.
    pub async fn failed(&mut self) -> Fatal {
        match self.parts.join_next().await {
            Some(Ok((_, Err(fatal)))) => fatal,
            Some(Ok((name, Ok(())))) => Fatal::Part(format!("part {name:?} of the node ended")),
            Some(Err(error)) => Fatal::Part(format!("a part of the node panicked: {error}")),
            None => Fatal::Part("every part of the node has ended".to_owned()),
        }
    }

    /// Ends leadership, lets open requests finish and stops.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let all = async { while self.parts.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            warn!(left = self.parts.len(), "the node did not stop in time");
            self.parts.shutdown().await;
        }
        let store = self.state.store();
        if let Some(store) = store {
            store.close().await;
        }
    }
}
