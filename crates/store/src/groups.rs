//! Groups: control planes whose data planes get the entities of all members.

use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use crate::{Actor, Change, ControlPlane, ListQuery, Page, Snapshot, Store, StoreError, sql};

/// A change of who is in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// These and no others, in this order.
    Replace(Vec<Uuid>),
    /// These as well, behind the others.
    Add(Vec<Uuid>),
    /// Not these.
    Remove(Vec<Uuid>),
}

/// An entity of a member that its group leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The member whose entity it is.
    pub member: Uuid,
    /// The kind of the entity.
    pub kind: Kind,
    /// The entity.
    pub id: Uuid,
    /// With what it clashes.
    pub reason: String,
}

/// What a group serves: the entities of its members without those that clash; see
/// [`Store::together`]. Every read merges all of them.
#[derive(Clone, Debug)]
pub struct Together {
    store: Store,
    group: Uuid,
}

impl Together {
    /// As [`Store::get`].
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn get(&self, kind: Kind, id: Uuid) -> Result<Option<Value>, StoreError> {
        let group = self.group;
        self.store
            .engine
            .read(move |tx| Box::pin(sql::groups::get(tx, group, kind, id)))
            .await
    }

    /// As [`Store::find`].
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn find(
        &self,
        kind: Kind,
        field: &str,
        value: &str,
    ) -> Result<Option<Value>, StoreError> {
        let group = self.group;
        let (field, value) = (field.to_owned(), value.to_owned());
        self.store
            .engine
            .read(move |tx| Box::pin(sql::groups::find(tx, group, kind, field, value)))
            .await
    }

    /// As [`Store::list`], in the order of `created_at` and id.
    ///
    /// # Errors
    /// [`StoreError::BadOffset`], [`StoreError::NoControlPlane`].
    pub async fn list(&self, kind: Kind, query: ListQuery) -> Result<Page, StoreError> {
        let group = self.group;
        self.store
            .engine
            .read(move |tx| Box::pin(sql::groups::list(tx, group, kind, query)))
            .await
    }
}

impl Store {
    /// The entities of a group's members together, as its data planes get them. A control plane
    /// without members has none.
    pub fn together(&self, group: Uuid) -> Together {
        let store = self.clone();
        Together { store, group }
    }

    /// Members of a group, in the order in which their entities count.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn group_members(&self, group: Uuid) -> Result<Vec<ControlPlane>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::groups::members(tx, group)))
            .await
    }

    /// Changes who is in a group. Adding a member again and removing a stranger change nothing.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`]; [`StoreError::NotAGroup`] if it is none;
    /// [`StoreError::CannotJoin`] if a member is of a type that joins none.
    pub async fn change_group(
        &self,
        actor: &Actor,
        group: Uuid,
        change: Members,
    ) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::groups::change(tx, actor, group, change)))
            .await
    }

    /// Whether a control plane is in a group.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn is_in_a_group(&self, member: Uuid) -> Result<bool, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::groups::is_member(tx, member)))
            .await
    }

    /// What a group serves, as [`Store::snapshot`], and whether that is all that its members have.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn group_snapshot(&self, group: Uuid) -> Result<(Snapshot, bool), StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::groups::snapshot(tx, group)))
            .await
    }

    /// The newest version of a group, and what its members changed since version `after`, oldest
    /// first and each under the version of the group that it led to. Takes time in proportion to
    /// the changes. `None` if that does not tell all: there are or were other members, the group
    /// leaves something out now or did at `after`, there are `limit` changes or more, or `after`
    /// is not there yet.
    ///
    /// The caller knows that the group served all that its members have at one of the versions from
    /// `after` on: what nobody changed since `after` is not looked at.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn group_changes(
        &self,
        group: Uuid,
        after: u64,
        limit: usize,
    ) -> Result<Option<(u64, Vec<Change>)>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::groups::changes(tx, group, after, limit)))
            .await
    }

    /// What a group leaves out of its members' entities.
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn group_conflicts(&self, group: Uuid) -> Result<Vec<Conflict>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::groups::conflicts(tx, group)))
            .await
    }
}
