//! What the parts of a running node know together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sallyport_runtime::tls;
use sallyport_store::{Member, NodeRole, Roster, Store, Wanted};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::identity::{self, Identity, IdentityError};
use super::recorded::Record;
use super::settings::Settings;
use crate::node_control::Tls;

/// A running node's knowledge. Every part reads and watches it; each value has one writer.
#[derive(Debug)]
pub struct State {
    /// The node's file.
    pub settings: Settings,
    /// Who it is.
    pub identity: Identity,
    /// This process; the next start has another.
    pub boot: Uuid,
    /// What the others dial.
    pub address: SocketAddr,
    /// Whether other nodes can exist: then there is a listener for them.
    pub clustered: bool,
    pub(crate) roster: watch::Sender<Arc<Roster>>,
    pub(crate) store: watch::Sender<Option<Store>>,
    pub(crate) duty: watch::Sender<Wanted>,
    pub(crate) live: watch::Sender<Arc<BTreeMap<Uuid, Facts>>>,
    pub(crate) lease: watch::Sender<LeaseView>,
    pub(crate) plane: watch::Sender<Option<SocketAddr>>,
    /// Where commands of this machine are recorded.
    pub(crate) record: watch::Sender<Record>,
    pub(crate) vitals: watch::Sender<Vitals>,
    pub(crate) accepts: watch::Sender<Accepts>,
    /// Where its rate limiter listens.
    pub(crate) rate_limit_bound: OnceLock<SocketAddr>,
    /// Where the others reach this node's rate limiter, while it runs.
    pub(crate) rate_limit: watch::Sender<Option<SocketAddr>>,
    /// How it proves itself to others, where others can exist.
    pub(crate) tls: OnceLock<Tls>,
    epoch_seen: AtomicU64,
}

/// Who leads, as this node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// The leader, if there is one.
    pub holder: Option<Uuid>,
    /// Its epoch, or the last one.
    pub epoch: u64,
    /// Up to when this process may act as the leader, on its own clock.
    pub mine_until: Option<Instant>,
}

impl LeaseView {
    /// The epoch in which this process leads, if it does.
    pub fn mine(&self) -> Option<u64> {
        self.mine_until
            .is_some_and(|until| Instant::now() < until)
            .then_some(self.epoch)
    }
}

/// What a node tells the others about itself, by gossip.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Version of its build.
    pub version: String,
    /// What it does: `active`, `cordoned`, `drained`.
    pub state: String,
    /// The epoch in which it leads, if it does.
    pub leads: Option<u64>,
    /// Whether it serves: what its `/testall` says.
    pub serving: bool,
    /// Whether its last query of the database succeeded.
    pub database: bool,
    /// Where it listens for other nodes.
    pub accepts: Accepts,
    /// Where its rate limiter takes keys; `None` if it takes none.
    pub rate_limit: Option<SocketAddr>,
    /// The revision of the roster that it knows.
    pub revision: u64,
}

/// Ports by contract id, as `9001/tcp`.
pub type Accepts = BTreeMap<String, Vec<String>>;

/// What the health part found out last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vitals {
    /// Why the node cannot serve; `None` if it can.
    pub(crate) why_not: Option<String>,
    pub(crate) database: bool,
    /// Share of the last minute that the processors were busy.
    pub(crate) cpu_percent: Option<u64>,
    /// When that was; `None` before the first time.
    pub(crate) at: Option<Instant>,
}

impl Default for Vitals {
    fn default() -> Vitals {
        Vitals {
            why_not: Some("the node starts".to_owned()),
            database: false,
            cpu_percent: None,
            at: None,
        }
    }
}

/// After that without a pulse, what is known is worth nothing: the process was paused.
const PULSE_AGE_MAX: Duration = Duration::from_secs(6);

impl State {
    /// The knowledge of a node that starts. What it did last is kept in its data directory.
    ///
    /// # Errors
    /// The data directory cannot be read.
    pub fn new(
        settings: Settings,
        identity: Identity,
        address: SocketAddr,
        roster: Roster,
    ) -> Result<State, IdentityError> {
        let duty = identity::read(&settings.data.join("duty"))?;
        let duty = duty.and_then(|word| word.trim().parse().ok());
        let epoch = identity::read(&settings.data.join("epoch"))?;
        let epoch = epoch.and_then(|number| number.trim().parse().ok());
        let clustered = settings.database.is_some() || identity.role == NodeRole::Witness;
        Ok(State {
            settings,
            identity,
            boot: Uuid::new_v4(),
            address,
            clustered,
            roster: watch::Sender::new(Arc::new(roster)),
            store: watch::Sender::new(None),
            duty: watch::Sender::new(duty.unwrap_or(Wanted::Active)),
            live: watch::Sender::new(Arc::default()),
            lease: watch::Sender::new(LeaseView::default()),
            plane: watch::Sender::new(None),
            record: watch::Sender::new(Record::default()),
            vitals: watch::Sender::new(Vitals::default()),
            accepts: watch::Sender::new(Accepts::default()),
            rate_limit_bound: OnceLock::new(),
            rate_limit: watch::Sender::new(None),
            tls: OnceLock::new(),
            epoch_seen: AtomicU64::new(epoch.unwrap_or(0)),
        })
    }

    /// The database, once it was reached.
    pub fn store(&self) -> Option<Store> {
        self.store.borrow().clone()
    }

    /// Every node, as last heard.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    /// The nodes that are there now, this one included, with what they say.
    pub fn live(&self) -> Arc<BTreeMap<Uuid, Facts>> {
        Arc::clone(&self.live.borrow())
    }

    /// Where its rate limiter listens, if it runs one.
    pub fn rate_limit(&self) -> Option<SocketAddr> {
        self.rate_limit_bound.get().copied()
    }

    /// Who leads.
    pub fn lease(&self) -> LeaseView {
        *self.lease.borrow()
    }

    /// What this node does.
    pub fn duty(&self) -> Wanted {
        *self.duty.borrow()
    }

    /// Nodes that belong to the cluster.
    pub fn members(&self) -> Vec<Member> {
        let roster = self.roster();
        let there = roster.members.iter();
        there
            .filter(|it| it.wanted != Wanted::Removed)
            .cloned()
            .collect()
    }

    /// Whether this node can serve requests now, and if not why.
    pub fn serving(&self) -> (bool, Option<String>) {
        let vitals = self.vitals.borrow();
        if vitals.at.is_some_and(|at| at.elapsed() > PULSE_AGE_MAX) {
            return (false, Some("the process was paused".to_owned()));
        }
        (vitals.why_not.is_none(), vitals.why_not.clone())
    }

    /// Whether more than half of the nodes are there. A node that is alone sees itself.
    pub fn sees_majority(&self) -> bool {
        let (members, live) = (self.members(), self.live());
        let seen = members.iter().filter(|it| live.contains_key(&it.id));
        2 * seen.count() > members.len()
    }

    /// What this node says about itself.
    pub(crate) fn facts(&self) -> Facts {
        let vitals = self.vitals.borrow().clone();
        Facts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.duty().to_string(),
            leads: self.lease().mine(),
            serving: self.serving().0,
            database: vitals.database,
            accepts: self.accepts.borrow().clone(),
            revision: self.roster().revision,
            rate_limit: self.rate_limit.borrow().filter(|_| self.counts_here()),
        }
    }

    /// Whether this node's rate limiter owns keys: not when it is drained.
    pub(crate) fn counts_here(&self) -> bool {
        self.duty() != Wanted::Drained
    }

    /// Takes note of a leader's epoch; `false` if a later one was seen before, whose leader has
    /// taken over.
    pub(crate) fn admit_epoch(&self, epoch: u64) -> bool {
        let before = self.epoch_seen.fetch_max(epoch, Ordering::SeqCst);
        if epoch > before {
            // Lost, it only lets an old leader's command through that the database refuses to note.
            let file = self.settings.data.join("epoch");
            if let Err(error) = identity::write(&file, &epoch.to_string()) {
                tracing::warn!(%error, "could not keep the epoch");
            }
        }
        epoch >= before
    }

    /// Does what is wanted from now on, and after a restart.
    pub(crate) fn set_duty(&self, wanted: Wanted) -> Result<(), IdentityError> {
        identity::write(&self.settings.data.join("duty"), wanted.as_str())?;
        self.duty.send_replace(wanted);
        Ok(())
    }

    /// What this node shows to others now; it may have changed since it was started.
    ///
    /// # Errors
    /// Certificate and key do not belong together.
    pub fn shown(&self) -> Result<tls::Identity, tls::identity::IdentityError> {
        match self.tls.get() {
            Some(tls) => Ok(tls.shown.identity()),
            None => self.identity.tls(),
        }
    }

    /// Where operators of this machine talk to the node.
    pub fn socket(&self) -> PathBuf {
        socket_of(&self.settings)
    }
}

/// The socket of the node with these settings.
pub fn socket_of(settings: &Settings) -> PathBuf {
    settings.data.join("node.sock")
}
