//! Changes with what is around them, for who serves an entity or not by what it belongs to.

use sallyport_model::Kind;
use serde_json::Value;
use uuid::Uuid;

use crate::{Change, Store, StoreError, sql};

/// What changed since a version of what a control plane serves, and what that concerns besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Around {
    /// The newest version, at which all of this was read.
    pub revision: u64,
    /// The changes, oldest first.
    pub changes: Vec<Change>,
    /// Entities that nobody changed, as they were and are: those that a changed one [belongs
    /// to](sallyport_model::config_table::belongs_to), those on which a change of such a one
    /// [decides](sallyport_model::config_table::decides), and what these belong to. Each once.
    pub others: Vec<(Kind, Value)>,
}

impl Store {
    /// What changed since version `after` of a control plane, or of the members of a group, and what
    /// is around it. Takes time in proportion to that. `None` if the change log does not tell all, or
    /// if there are `limit` changes or others or more; of groups as [`Store::group_changes`].
    ///
    /// # Errors
    /// [`StoreError::NoControlPlane`].
    pub async fn changes_around(
        &self,
        cp: Uuid,
        after: u64,
        limit: usize,
    ) -> Result<Option<Around>, StoreError> {
        self.engine
            .read(move |tx| Box::pin(sql::around::around(tx, cp, after, limit)))
            .await
    }
}
