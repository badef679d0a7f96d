//! The appliance cluster: its nodes, what is wanted of each, and the lease of the one that leads.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::{Actor, Store, StoreError, sql};

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeRole {
    /// Serves every request and may lead.
    Data,
    /// Counts when the others ask for a majority, and runs nothing else. It has no database.
    Witness,
}

/// What an operator wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// Takes its share of the work.
    Active,
    /// Keeps its work, gets no new one, does not lead.
    Cordoned,
    /// Has let go of all work.
    Drained,
    /// Does not belong to the cluster any more; its certificate is worth nothing.
    Removed,
}

/// A word that stands for none of the values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {1}")]
pub struct UnknownWord(String, &'static str);

macro_rules! words {
    ($kind:ident, $all:literal, $($variant:ident = $word:literal),*) => {
        impl $kind {
            /// Its word, in the database and everywhere else.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($kind::$variant => $word),*
                }
            }
        }
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $kind {
            type Err = UnknownWord;
            fn from_str(word: &str) -> Result<$kind, UnknownWord> {
                match word {
                    $($word => Ok($kind::$variant),)*
                    other => Err(UnknownWord(other.to_owned(), $all)),
                }
            }
        }
    };
}
words!(
    NodeRole,
    "data, witness",
    Data = "data",
    Witness = "witness"
);
words!(
    Wanted,
    "active, cordoned, drained, removed",
    Active = "active",
    Cordoned = "cordoned",
    Drained = "drained",
    Removed = "removed"
);

/// What all nodes share. Keys are sealed: the database cannot read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Identity.
    pub id: Uuid,
    /// Certificate (PEM) of the authority of nodes.
    pub node_ca: String,
    /// Its key, sealed.
    pub node_ca_key: Vec<u8>,
    /// Certificate (PEM) of the authority of the APIs' servers.
    pub api_ca: String,
    /// Its key, sealed.
    pub api_ca_key: Vec<u8>,
}

/// A cluster to found, with its first node.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// What all nodes will share.
    pub cluster: Cluster,
    /// The first node.
    pub first: NewMember,
}

/// A node to take in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// Identity.
    pub id: Uuid,
    /// Name, unique among the nodes that are not removed.
    pub name: String,
    /// What for.
    pub role: NodeRole,
    /// Where the others reach it, `address:port`.
    pub address: String,
    /// SHA-256 of its public key.
    pub key_digest: [u8; 32],
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Identity.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// What for.
    pub role: NodeRole,
    /// Where the others reach it, `address:port`.
    pub address: String,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// The revision of the roster at which that was said.
    pub wanted_at: u64,
    /// SHA-256 of its public key.
    pub key_digest: [u8; 32],
    /// The same of the key that it is about to use; `key_digest` if it keeps its own. Either is it.
    pub next_key: [u8; 32],
    /// Unix milliseconds.
    pub joined_at_ms: i64,
}

/// A key that may give commands to every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliKey {
    /// Name.
    pub name: String,
    /// SHA-256 of its certificate.
    pub digest: [u8; 32],
}

/// Every node that ever was in the cluster, the removed ones too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Counts changes of it.
    pub revision: u64,
    /// In the order of their names.
    pub members: Vec<Member>,
}

/// A node that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The node; with the identity of an earlier call if this one repeats it.
    pub member: Member,
    /// What all nodes share.
    pub cluster: Cluster,
}

/// Who leads, by the database's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The node; `None` if nobody ever led.
    pub holder: Option<Uuid>,
    /// Whether it is the process that asked.
    pub mine: bool,
    /// Grows with each change of the holder.
    pub epoch: u64,
    /// Unix microseconds of the database's clock at which it ends.
    pub until_us: i64,
    /// The database's clock, Unix microseconds.
    pub now_us: i64,
}

/// What a leader did for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The leader's epoch.
    pub epoch: u64,
    /// The leader.
    pub holder: Uuid,
    /// The node that it was about.
    pub node: Uuid,
    /// What was wanted.
    pub wanted: Wanted,
    /// The revision at which it was said.
    pub wanted_at: u64,
    /// `begun`, `done` or `failed`.
    pub outcome: String,
    /// Why it failed; else empty.
    pub detail: String,
    /// Unix microseconds of the database's clock.
    pub at_us: i64,
}

impl Store {
    /// Founds the cluster of this database, with its first node. May be repeated with the same ids.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] on `cluster` if there is another one already.
    pub async fn found_cluster(&self, actor: &Actor, new: NewCluster) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::cluster::found(tx, actor, new)))
            .await
    }

    /// What all nodes share; `None` before the cluster is founded.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn cluster(&self) -> Result<Option<Cluster>, StoreError> {
        self.engine
            .look(|tx| Box::pin(sql::cluster::cluster(tx)))
            .await
    }

    /// Every node.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn roster(&self) -> Result<Roster, StoreError> {
        self.engine
            .read(|tx| Box::pin(sql::cluster::roster(tx)))
            .await
    }

    /// Stores a token by which one node may join within `secs` of the database's clock.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] before the cluster is founded.
    pub async fn create_join_token(
        &self,
        actor: &Actor,
        digest: [u8; 32],
        role: NodeRole,
        secs: u32,
    ) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::cluster::create_token(tx, actor, digest, role, secs)))
            .await
    }

    /// Takes a node in and uses up its token. A repetition with the same token and key gets the
    /// same node; with another key it is refused. The role is the token's.
    ///
    /// # Errors
    /// [`ClusterRefusal::BadToken`](crate::ClusterRefusal::BadToken); [`StoreError::UniqueTaken`] on `name` or `address`.
    pub async fn admit_node(
        &self,
        token: [u8; 32],
        new: NewMember,
    ) -> Result<Admission, StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::cluster::admit(tx, token, new)))
            .await
    }

    /// Says that the process `boot` is node `id` from now on, reachable at `address`. An earlier
    /// process of that node gets [`ClusterRefusal::Superseded`](crate::ClusterRefusal::Superseded) from now on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is removed or never was; [`StoreError::UniqueTaken`] if
    /// another node has the address.
    pub async fn start_node(&self, id: Uuid, boot: Uuid, address: &str) -> Result<(), StoreError> {
        let address = address.to_owned();
        self.engine
            .write(move |tx| Box::pin(sql::cluster::start_node(tx, id, boot, address)))
            .await
    }

    /// Every node, for the process `boot` of node `id`.
    ///
    /// # Errors
    /// [`ClusterRefusal::Superseded`](crate::ClusterRefusal::Superseded) if another process runs as it.
    pub async fn roster_for(&self, id: Uuid, boot: Uuid) -> Result<Roster, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::cluster::roster_for(tx, id, boot)))
            .await
    }

    /// Says what is wanted of the node with this name; a removed one stays removed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn want(
        &self,
        actor: &Actor,
        name: &str,
        wanted: Wanted,
    ) -> Result<Member, StoreError> {
        let (actor, name) = (actor.clone(), name.to_owned());
        self.engine
            .write(move |tx| Box::pin(sql::cluster::want(tx, actor, name, wanted)))
            .await
    }

    /// Takes note of the key that a node is about to use; either is its own from now on. The revision
    /// of the roster that says so.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such node any more.
    pub async fn announce_key(
        &self,
        actor: &Actor,
        id: Uuid,
        next: [u8; 32],
    ) -> Result<u64, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::cluster::announce_key(tx, actor, id, next)))
            .await
    }

    /// The node uses its announced key, so the one before is nobody's. A repetition changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such node, or it announced another key.
    pub async fn settle_key(
        &self,
        actor: &Actor,
        id: Uuid,
        key: [u8; 32],
    ) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::cluster::settle_key(tx, actor, id, key)))
            .await
    }

    /// The keys that may give commands to every node, by name.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn cli_keys(&self) -> Result<Vec<CliKey>, StoreError> {
        self.engine
            .read(|tx| Box::pin(sql::cluster::cli_keys(tx)))
            .await
    }

    /// Lets a key give commands to every node; one that may already gets the new name.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] if another key has the name; [`StoreError::NotFound`] before the
    /// cluster is founded.
    pub async fn allow_cli_key(&self, actor: &Actor, key: CliKey) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::cluster::allow_cli_key(tx, actor, key)))
            .await
    }

    /// Takes the key of this name out.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revoke_cli_key(&self, actor: &Actor, name: &str) -> Result<(), StoreError> {
        let (actor, name) = (actor.clone(), name.to_owned());
        self.engine
            .write(move |tx| Box::pin(sql::cluster::revoke_cli_key(tx, actor, name)))
            .await
    }

    /// Takes or keeps leadership for `ttl_ms`, unless another process holds it; who holds it then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] before the cluster is founded; failures of the engine, which leave
    /// it unknown who leads.
    pub async fn lead(&self, id: Uuid, boot: Uuid, ttl_ms: u32) -> Result<Lease, StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::cluster::lead(tx, id, boot, ttl_ms)))
            .await
    }

    /// Gives leadership back if the process has it, so that another node need not wait.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn resign(&self, boot: Uuid) -> Result<(), StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::cluster::resign(tx, boot)))
            .await
    }

    /// Who leads, without asking for it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] before the cluster is founded.
    pub async fn leader(&self) -> Result<Lease, StoreError> {
        self.engine
            .look(|tx| Box::pin(sql::cluster::leader(tx)))
            .await
    }

    /// Notes what the leader with `boot` did in its `epoch`; `at_us` is set here.
    ///
    /// # Errors
    /// [`ClusterRefusal::NotLeader`](crate::ClusterRefusal::NotLeader) if the epoch is over: then nothing was written.
    pub async fn record_step(&self, boot: Uuid, step: Step) -> Result<(), StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::cluster::record_step(tx, boot, step)))
            .await
    }

    /// The newest `limit` steps, newest first.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn steps(&self, limit: u32) -> Result<Vec<Step>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::cluster::steps(tx, limit)))
            .await
    }
}
