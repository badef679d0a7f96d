//! The organisation, its owner and access tokens.

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
    /// Address, also the login name.
    pub email: String,
    /// Name shown to clients.
    pub full_name: String,
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

/// A personal access token; only its digest is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Identity.
    pub id: Uuid,
    /// Name given by its user.
    pub name: String,
    /// Whose it is.
    pub user: User,
    /// Unix milliseconds.
    pub created_at_ms: i64,
}

/// A token to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Unique name.
    pub name: String,
    /// SHA-256 of the token's text.
    pub digest: [u8; 32],
    /// Whose it is.
    pub user: Uuid,
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

    /// Stores a token.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] on `name` or `token`, [`StoreError::NotFound`] if there is no
    /// such user.
    pub async fn create_token(&self, actor: &Actor, new: NewToken) -> Result<Token, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::identity::create_token(tx, actor, new)))
            .await
    }

    /// The token whose text has this SHA-256; `None` if there is none.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn token_by_digest(&self, digest: [u8; 32]) -> Result<Option<Token>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::identity::token_by_digest(tx, digest)))
            .await
    }

    /// Every token, oldest first.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.engine
            .look(|tx| Box::pin(sql::identity::tokens(tx)))
            .await
    }

    /// Removes a token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_token(&self, actor: &Actor, id: Uuid) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::identity::delete_token(tx, actor, id)))
            .await
    }
}
