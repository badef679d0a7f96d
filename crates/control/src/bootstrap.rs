//! What a first start needs: an organisation, a control plane, a token.

use sallyport_store::{
    Actor, ControlPlane, NewControlPlane, NewOrganization, NewToken, Organization, Store,
    StoreError,
};

use crate::identity::{Prefix, TEAMS, digest, new_token, now_ms};

/// Name of the control plane.
const CONTROL_PLANE: &str = "default";

/// What is there after [`bootstrap`].
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The organisation.
    pub organization: Organization,
    /// The control plane named `default`.
    pub control_plane: ControlPlane,
    /// A token that works; the store keeps only its digest, so the caller has to remember it.
    pub token: String,
}

/// Why a first start failed.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The database refused.
    #[error("could not prepare the database")]
    Store(#[from] StoreError),
    /// The system gave no random bytes for a token.
    #[error("the system gave no random bytes: {0}")]
    Randomness(String),
}

/// Makes what is missing: the organisation with its owner, a control plane named `default`, and a
/// token named `token_name`. Processes that share a database may do so at the same time, with
/// tokens of different names.
///
/// `token` is the one that an earlier call returned, if the caller still has it; it is kept when
/// the store knows it and replaced otherwise. May be called at each start.
///
/// # Errors
/// See [`BootstrapError`].
pub async fn bootstrap(
    store: &Store,
    token_name: &str,
    token: Option<&str>,
) -> Result<Bootstrap, BootstrapError> {
    let actor = Actor("bootstrap".to_owned());
    let new = NewOrganization {
        name: "Sallyport".to_owned(),
        owner_email: "owner@localhost".to_owned(),
        owner_full_name: "Owner".to_owned(),
    };
    let organization = store.ensure_organization(&actor, new).await?;
    let teams = TEAMS.iter();
    let teams = teams.map(|team| (team.name.to_owned(), team.description.to_owned()));
    store.ensure_teams(&actor, teams.collect()).await?;
    let control_plane = match default_control_plane(store).await? {
        Some(control_plane) => control_plane,
        None => {
            let name = CONTROL_PLANE.to_owned();
            let new = NewControlPlane {
                name,
                ..NewControlPlane::default()
            };
            match store.create_control_plane(&actor, new).await {
                // Another process made it in between.
                Err(taken @ StoreError::UniqueTaken { .. }) => {
                    let made = default_control_plane(store).await?;
                    made.ok_or(taken)?
                }
                made => made?,
            }
        }
    };
    if let Some(token) = token
        && let Some(bearer) = store.bearer(digest(token)).await?
        && bearer.token.is_good(now_ms())
    {
        return Ok(Bootstrap {
            organization,
            control_plane,
            token: token.to_owned(),
        });
    }
    let lost = store
        .tokens(Some(organization.owner.id))
        .await?
        .into_iter()
        .find(|token| token.name == token_name);
    if let Some(lost) = lost {
        store.delete_token(&actor, lost.id).await?;
    }
    let token =
        new_token(Prefix::Person).map_err(|error| BootstrapError::Randomness(error.to_string()))?;
    let new = NewToken {
        name: token_name.to_owned(),
        digest: digest(&token),
        owner: organization.owner.id,
        expires_at_ms: None,
    };
    store.create_token(&actor, new).await?;
    Ok(Bootstrap {
        organization,
        control_plane,
        token,
    })
}

async fn default_control_plane(store: &Store) -> Result<Option<ControlPlane>, StoreError> {
    let mut known = store.control_planes().await?.into_iter();
    Ok(known.find(|cp| cp.name == CONTROL_PLANE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_start_finds_what_the_first_made() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
        let first = bootstrap(&store, "t", None).await.unwrap();
        let second = bootstrap(&store, "t", Some(&first.token)).await.unwrap();
        assert_eq!(second.token, first.token);
        assert_eq!(second.control_plane, first.control_plane);
        assert_eq!(second.organization, first.organization);

        let third = bootstrap(&store, "t", Some("kpat_forgotten"))
            .await
            .unwrap();
        assert_ne!(third.token, first.token);
        assert_eq!(store.bearer(digest(&first.token)).await.unwrap(), None);
        assert_eq!(store.tokens(None).await.unwrap().len(), 1);
    }
}
