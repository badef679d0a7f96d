//! Teams, system accounts, and the roles that are assigned to them and to people.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{Actor, Store, StoreError, User, sql};

/// People and system accounts who share roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Identity.
    pub id: Uuid,
    /// Name; several may have the same.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Whether the product brought it: its name and roles stand.
    pub predefined: bool,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// A partial change of a team or system account; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in Team and SystemAccount")]
pub struct NameUpdate {
    pub name: Option<String>,
    pub description: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
}

/// A program that acts by tokens of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemAccount {
    /// Identity.
    pub id: Uuid,
    /// Unique name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
}

/// Who holds roles or is in a team.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A person.
    User(Uuid),
    /// A team.
    Team(Uuid),
    /// A system account.
    SystemAccount(Uuid),
}

impl Holder {
    /// Identity.
    pub fn id(self) -> Uuid {
        match self {
            Holder::User(id) | Holder::Team(id) | Holder::SystemAccount(id) => id,
        }
    }
}

/// What a role is and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NewRole {
    /// Such as `Viewer`.
    pub role: String,
    /// Such as `Control Planes`.
    pub entity_type: String,
    /// Id of one entity, or `*`.
    pub entity: String,
    /// A geo, or `*`.
    pub region: String,
}

/// A role that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedRole {
    /// Identity of the assignment.
    pub id: Uuid,
    /// What is assigned.
    pub role: NewRole,
}

impl Store {
    /// Makes the predefined teams that are not there yet: name and description of each.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn ensure_teams(
        &self,
        actor: &Actor,
        teams: Vec<(String, String)>,
    ) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::teams::ensure(tx, actor, teams)))
            .await
    }

    /// Every team, oldest first.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn teams(&self) -> Result<Vec<Team>, StoreError> {
        self.engine.look(|tx| Box::pin(sql::teams::list(tx))).await
    }

    /// One team.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn team(&self, id: Uuid) -> Result<Team, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::teams::get(tx, id)))
            .await
    }

    /// Makes a team.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn create_team(
        &self,
        actor: &Actor,
        name: String,
        description: String,
        labels: BTreeMap<String, String>,
    ) -> Result<Team, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::teams::create(tx, actor, name, description, labels)))
            .await
    }

    /// Changes a team.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn update_team(
        &self,
        actor: &Actor,
        id: Uuid,
        update: NameUpdate,
    ) -> Result<Team, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::teams::update(tx, actor, id, update)))
            .await
    }

    /// Removes a team with its roles and memberships.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_team(&self, actor: &Actor, id: Uuid) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::teams::delete(tx, actor, id)))
            .await
    }

    /// The people in a team, oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such team.
    pub async fn team_users(&self, team: Uuid) -> Result<Vec<User>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::teams::users(tx, team)))
            .await
    }

    /// The system accounts in a team, oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such team.
    pub async fn team_accounts(&self, team: Uuid) -> Result<Vec<SystemAccount>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::teams::accounts(tx, team)))
            .await
    }

    /// The teams that a person or system account is in, oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such member.
    pub async fn teams_of(&self, member: Holder) -> Result<Vec<Team>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::teams::of(tx, member)))
            .await
    }

    /// Puts a person or system account into a team. Again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if team or member is not there.
    pub async fn join_team(
        &self,
        actor: &Actor,
        team: Uuid,
        member: Holder,
    ) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::teams::join(tx, actor, team, member)))
            .await
    }

    /// Takes a person or system account out of a team.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is not in the team.
    pub async fn leave_team(
        &self,
        actor: &Actor,
        team: Uuid,
        member: Holder,
    ) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::teams::leave(tx, actor, team, member)))
            .await
    }

    /// The roles assigned to somebody, oldest first; not those of the teams of a member.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such holder.
    pub async fn assigned_roles(&self, holder: Holder) -> Result<Vec<AssignedRole>, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::teams::roles(tx, holder)))
            .await
    }

    /// Assigns a role. Again changes nothing and answers with the same.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such holder.
    pub async fn assign_role(
        &self,
        actor: &Actor,
        holder: Holder,
        role: NewRole,
    ) -> Result<AssignedRole, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::teams::assign(tx, actor, holder, role)))
            .await
    }

    /// Takes a role away.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn unassign_role(
        &self,
        actor: &Actor,
        holder: Holder,
        id: Uuid,
    ) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::teams::unassign(tx, actor, holder, id)))
            .await
    }

    /// Every system account, oldest first.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn system_accounts(&self) -> Result<Vec<SystemAccount>, StoreError> {
        self.engine
            .look(|tx| Box::pin(sql::accounts::list(tx)))
            .await
    }

    /// One system account.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn system_account(&self, id: Uuid) -> Result<SystemAccount, StoreError> {
        self.engine
            .look(move |tx| Box::pin(sql::accounts::get(tx, id)))
            .await
    }

    /// Makes a system account.
    ///
    /// # Errors
    /// [`StoreError::UniqueTaken`] on `name`.
    pub async fn create_system_account(
        &self,
        actor: &Actor,
        name: String,
        description: String,
    ) -> Result<SystemAccount, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::accounts::create(tx, actor, name, description)))
            .await
    }

    /// Changes a system account; it has no labels.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::UniqueTaken`] on `name`.
    pub async fn update_system_account(
        &self,
        actor: &Actor,
        id: Uuid,
        update: NameUpdate,
    ) -> Result<SystemAccount, StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::accounts::update(tx, actor, id, update)))
            .await
    }

    /// Removes a system account with its tokens, roles and memberships.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_system_account(&self, actor: &Actor, id: Uuid) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.engine
            .write(move |tx| Box::pin(sql::accounts::delete(tx, actor, id)))
            .await
    }
}
