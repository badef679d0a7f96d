//! Access tokens: of people and of system accounts.

use uuid::Uuid;

use crate::{Actor, AssignedRole, Store, StoreError, SystemAccount, User, sql};

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A person's.
    User(User),
    /// A program's.
    SystemAccount(SystemAccount),
}

impl Owner {
    /// Identity of the person or account.
    pub fn id(&self) -> Uuid {
        match self {
            Owner::User(user) => user.id,
            Owner::SystemAccount(account) => account.id,
        }
    }

    /// Name of the person or account.
    pub fn name(&self) -> &str {
        match self {
            Owner::User(user) => &user.full_name,
            Owner::SystemAccount(account) => &account.name,
        }
    }
}

/// An access token; only its digest is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Identity.
    pub id: Uuid,
    /// Name, unique among the tokens of its owner.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
    /// From when on it is no good, Unix milliseconds; `None`: never.
    pub expires_at_ms: Option<i64>,
    /// About when it was used last, Unix milliseconds.
    pub last_used_at_ms: Option<i64>,
    /// When it was revoked, Unix milliseconds.
    pub revoked_at_ms: Option<i64>,
    /// Who revoked it.
    pub revoked_by: Option<String>,
}

impl Token {
    /// Whether it opens anything at this moment, in Unix milliseconds.
    pub fn is_good(&self, now_ms: i64) -> bool {
        let active = match &self.owner {
            Owner::User(user) => user.active,
            Owner::SystemAccount(_) => true,
        };
        active && self.revoked_at_ms.is_none() && self.expires_at_ms.is_none_or(|at| now_ms < at)
    }
}

/// A token to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Name, unique among the tokens of its owner.
    pub name: String,
    /// SHA-256 of the token's text.
    pub digest: [u8; 32],
    /// Id of the person or system account.
    pub owner: Uuid,
    /// From when on it is no good, Unix milliseconds.
    pub expires_at_ms: Option<i64>,
}

/// Who shows a token, and what that one may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The token, good or not.
    pub token: Token,
    /// Whether it is the owner of the organisation.
    pub is_owner: bool,
    /// Names of the predefined teams that the owner of the token is in.
    pub predefined_teams: Vec<String>,
    /// Roles of the token's owner and of its teams.
    pub roles: Vec<AssignedRole>,
    /// The setting `ip_allow_list`, if it is set.
    pub ip_allow_list: Option<serde_json::Value>,
}

impl Store {
    /// Stores a token.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] on `name` or `token`, [`StoreError::NotFound`] if there is no
    /// such person or account.
    pub async fn create_token(&self, actor: &Actor, new: NewToken) -> Result<Token, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::tokens::create(tx, actor, new)))
            .await
    }

    /// Who shows the token whose text has this SHA-256; `None` if there is none.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn bearer(&self, digest: [u8; 32]) -> Result<Option<Bearer>, StoreError> {
        self.engine
            .glance(move |tx| Box::pin(sql::tokens::bearer(tx, digest)))
            .await
    }

    /// Every token, or those of one owner, oldest first.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn tokens(&self, owner: Option<Uuid>) -> Result<Vec<Token>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::tokens::list(tx, owner)))
            .await
    }

    /// Renames a token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::UniqueTaken`] on `name`.
    pub async fn rename_token(
        &self,
        actor: &Actor,
        id: Uuid,
        name: String,
    ) -> Result<Token, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::tokens::rename(tx, actor, id, name)))
            .await
    }

    /// Makes a token no good, and keeps it in lists. Again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revoke_token(
        &self,
        actor: &Actor,
        id: Uuid,
        by: String,
    ) -> Result<Token, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::tokens::revoke(tx, actor, id, by)))
            .await
    }

    /// Removes a token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_token(&self, actor: &Actor, id: Uuid) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::tokens::delete(tx, actor, id)))
            .await
    }

    /// Notes that a token was used now; not in the change log.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn token_used(&self, id: Uuid) -> Result<(), StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::tokens::used(tx, id)))
            .await
    }
}
