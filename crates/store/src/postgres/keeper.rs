//! Where every control plane stands, kept from three sources: our own commits, notifications of
//! other processes, and a look at the whole table each second. The last one is the truth; the
//! others only make it faster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::dial::Dialler;
use super::session::{CHANNEL, Mode, Session};
use crate::sql::{Conn, Fail, Outcome, Tx, control_planes};
use crate::{Head, Heads, OpenError, StorageFailure, StoreError};

/// How often the whole table is looked at.
const POLL: Duration = Duration::from_secs(1);
/// Pause before the connection is made again.
const RETRY: Duration = Duration::from_millis(500);

/// The heads, and who wants to hear of them.
pub(super) struct Keeper {
    sender: watch::Sender<Heads>,
    own: Mutex<Own>,
}

/// Our own commits, which a look that began before them must not undo.
#[derive(Default)]
struct Own {
    /// Counts looks and commits.
    now: u64,
    committed: HashMap<Uuid, u64>,
}

impl Default for Keeper {
    fn default() -> Keeper {
        Keeper {
            sender: watch::channel(Heads::default()).0,
            own: Mutex::default(),
        }
    }
}

impl Keeper {
    pub(super) fn watch(&self) -> watch::Receiver<Heads> {
        self.sender.subscribe()
    }

    /// Tells of a commit of this process.
    pub(super) fn announce(&self, heads: Vec<(Uuid, Option<Head>)>) {
        if heads.is_empty() {
            return;
        }
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.now += 1;
        let now = own.now;
        // A notification of this very commit may have come first.
        self.sender.send_if_modified(|known| {
            let mut changed = false;
            for (cp, head) in heads {
                own.committed.insert(cp, now);
                changed |= place(known, cp, head);
            }
            changed
        });
    }

    /// The moment before a look.
    fn begin(&self) -> u64 {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).now
    }

    /// Takes in what a look at the whole table, begun at `began`, has shown.
    fn look(&self, began: u64, seen: BTreeMap<Uuid, Head>) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.committed.retain(|_, at| *at > began);
        self.sender.send_if_modified(|known| {
            let before = known.0.len();
            let ours = |cp: &Uuid| own.committed.contains_key(cp);
            known.0.retain(|cp, _| seen.contains_key(cp) || ours(cp));
            let mut changed = known.0.len() != before;
            for (cp, head) in seen {
                if known.0.contains_key(&cp) || !ours(&cp) {
                    changed |= place(known, cp, Some(head));
                }
            }
            changed
        });
    }

    /// Takes in where single control planes stand.
    fn hint(&self, began: u64, seen: Vec<(Uuid, Option<Head>)>) {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        self.sender.send_if_modified(|known| {
            let mut changed = false;
            for (cp, head) in seen {
                let newer = own.committed.get(&cp).is_some_and(|at| *at > began);
                changed |= !newer && place(known, cp, head);
            }
            changed
        });
    }

    /// Reads the heads once, and returns what keeps them from then on.
    pub(super) async fn start(
        self: &Arc<Self>,
        dialler: Arc<Dialler>,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + Send + use<>, OpenError> {
        let mut line = Line::open(&dialler).await?;
        let keeper = Arc::clone(self);
        let looked = line.look(&keeper).await;
        looked.map_err(|error| OpenError::Engine {
            database: dialler.address().shown.clone(),
            detail: error.to_string(),
        })?;
        Ok(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keeper.keep(&dialler, line) => {}
            }
        })
    }

    async fn keep(&self, dialler: &Dialler, mut line: Line) {
        loop {
            let error = line.follow(self).await;
            tracing::warn!(%error, "lost the connection that hears of changes, making it again");
            line = loop {
                sleep(RETRY).await;
                match Line::open(dialler).await {
                    Ok(line) => break line,
                    Err(error) => tracing::debug!(%error, "the database is not there yet"),
                }
            };
        }
    }
}

/// Puts a sight in place; whether it is news. A revision never goes back: where it does in the
/// database, that has lost writes that it had acknowledged, and who has seen them keeps them.
fn place(known: &mut Heads, cp: Uuid, head: Option<Head>) -> bool {
    let Some(head) = head else {
        return known.0.remove(&cp).is_some();
    };
    let later = known.0.get(&cp).map_or(head, |held| held.later(head));
    known.0.insert(cp, later) != Some(later)
}

/// The connection that listens.
struct Line {
    tx: Tx,
    notifications: mpsc::Receiver<String>,
}

impl Line {
    async fn open(dialler: &Dialler) -> Result<Line, OpenError> {
        let (session, notifications) = dialler.listening().await?;
        let listen = format!("LISTEN {CHANNEL}");
        let listening = session.client.batch_execute(&listen).await;
        listening.map_err(|error| OpenError::Unreachable {
            database: dialler.address().shown.clone(),
            detail: super::told(&error),
        })?;
        Ok(Line {
            tx: Tx::new(Conn::Postgres(session)),
            notifications,
        })
    }

    /// Follows the heads until the connection fails.
    async fn follow(&mut self, keeper: &Keeper) -> StoreError {
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let followed = tokio::select! {
                _ = poll.tick() => self.look(keeper).await,
                heard = self.notifications.recv() => match heard {
                    Some(first) => self.hints(keeper, first).await,
                    None => Err(StorageFailure::Unavailable("the connection ended".to_owned()).into()),
                },
            };
            if let Err(error) = followed {
                return error;
            }
        }
    }

    /// Looks at the whole table.
    async fn look(&mut self, keeper: &Keeper) -> Result<(), StoreError> {
        let began = keeper.begin();
        self.session()?.begin(Mode::Read);
        let seen = control_planes::heads(&mut self.tx).await?;
        self.session()?.commit(Mode::Read, &[]).await?;
        keeper.look(began, seen);
        Ok(())
    }

    /// Looks at what notifications name, all that wait at once.
    async fn hints(&mut self, keeper: &Keeper, first: String) -> Result<(), StoreError> {
        let mut named = BTreeSet::new();
        let mut next = Some(first);
        while let Some(payload) = next {
            if payload.is_empty() {
                return self.look(keeper).await;
            }
            // Anybody with the database's password can notify; what is no id says nothing.
            named.extend(payload.split(',').filter_map(|id| Uuid::try_parse(id).ok()));
            next = self.notifications.try_recv().ok();
        }
        let began = keeper.begin();
        self.session()?.begin(Mode::Read);
        let mut seen = Vec::with_capacity(named.len());
        for cp in named {
            seen.push((cp, control_planes::head_of(&mut self.tx, cp).await?));
        }
        self.session()?.commit(Mode::Read, &[]).await?;
        keeper.hint(began, seen);
        Ok(())
    }

    fn session(&mut self) -> Outcome<&mut Session> {
        match &mut self.tx.conn {
            Conn::Postgres(session) => Ok(session),
            Conn::Sqlite(_) => Err(Fail::Damaged("not a session".to_owned())),
        }
    }
}
