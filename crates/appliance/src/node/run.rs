//! Start and end of a node.

use std::sync::Arc;
use std::time::Duration;

use sallyport_runtime::ListenError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::database::{Fatal, follow, has_database};
use super::identity::{Identity, IdentityError, MemberFile};
use super::local::{Local, LocalError};
use super::plane::Plane;
use super::settings::{Settings, SettingsError};
use super::state::State;
use super::work::reconcile;
use crate::node_control::alone;

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
        let roster = MemberFile::of(&settings.data).load()?;
        let state = Arc::new(State::new(settings, identity, address, roster)?);
        let local = Local::open(&state)?;
        let mut node = Node {
            parts: JoinSet::new(),
            stop: CancellationToken::new(),
            state,
        };
        let state = Arc::clone(&node.state);
        node.part("local", |stop| local.serve(stop));
        let own = Arc::clone(&state);
        node.part("membership", |stop| alone(own, stop));
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
