//! The organisation and its people.

use uuid::Uuid;

use crate::{Actor, Store, StoreError, sql};

/// The one organisation of this installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Identity.
    pub id: Uuid,
    /// Name shown to clients.
    pub name: String,
    /// Who owns it.
    pub owner: User,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Identity.
    pub id: Uuid,
    /// Address, also the login name; unique.
    pub email: String,
    /// Name shown to clients.
    pub full_name: String,
    /// What the person wants to be called.
    pub preferred_name: Option<String>,
    /// Whether the person may do anything at all.
    pub active: bool,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// What the first start decides about the organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in Organization and User")]
pub struct NewOrganization {
    pub name: String,
    pub owner_email: String,
    pub owner_full_name: String,
}

/// A partial change of a person; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in User")]
pub struct UserUpdate {
    pub full_name: Option<String>,
    pub preferred_name: Option<Option<String>>,
    pub active: Option<bool>,
}

impl Store {
    /// The organisation; makes it with its owner if there is none yet.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn ensure_organization(
        &self,
        actor: &Actor,
        new: NewOrganization,
    ) -> Result<Organization, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::identity::ensure(tx, actor, new)))
            .await
    }

    /// The organisation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] before the first [`Store::ensure_organization`].
    pub async fn organization(&self) -> Result<Organization, StoreError> {
        let found = self
            .engine
            .look(|tx| Box::pin(sql::identity::organization(tx)))
            .await?;
        found.ok_or(StoreError::NotFound)
    }

    /// Every person, oldest first.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        self.engine
            .look(|tx| Box::pin(sql::identity::users(tx)))
            .await
    }

    /// One person.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn user(&self, id: Uuid) -> Result<User, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::identity::user_by_id(tx, id)))
            .await
    }

    /// Adds a person.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] on `email`.
    pub async fn create_user(
        &self,
        actor: &Actor,
        email: String,
        full_name: String,
    ) -> Result<User, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::identity::create_user(tx, actor, email, full_name)))
            .await
    }

    /// Changes a person.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn update_user(
        &self,
        actor: &Actor,
        id: Uuid,
        update: UserUpdate,
    ) -> Result<User, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::identity::update_user(tx, actor, id, update)))
            .await
    }

    /// Removes a person with tokens, roles and memberships; the owner stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for the owner.
    pub async fn delete_user(&self, actor: &Actor, id: Uuid) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::identity::delete_user(tx, actor, id)))
            .await
    }

    /// A setting of the organisation; `None` if it was never set.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn setting(&self, name: &str) -> Result<Option<serde_json::Value>, StoreError> {
        let name = name.to_owned();
        self.engine
            .look(move |tx| Box::pin(sql::identity::setting(tx, name)))
            .await
    }

    /// Sets a setting of the organisation.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn set_setting(
        &self,
        actor: &Actor,
        name: &str,
        value: serde_json::Value,
    ) -> Result<(), StoreError> {
        let (actor, name) = (actor.clone(), name.to_owned());
        self.engine
            .write(move |tx| Box::pin(sql::identity::set_setting(tx, actor, name, value)))
            .await
    }
}
