//! People, teams, system accounts, roles, tokens, settings.

use std::collections::BTreeMap;

use sallyport_store::{
    Holder, NameUpdate, NewOrganization, NewRole, NewToken, Organization, Owner, Store, StoreError,
    UserUpdate,
};
use serde_json::json;
use uuid::Uuid;

use super::{actor, taken};

async fn organization(store: &Store) -> Organization {
    let me = actor();
    let new = NewOrganization {
        name: "first".to_owned(),
        owner_email: "owner@localhost".to_owned(),
        owner_full_name: "Owner".to_owned(),
    };
    store.ensure_organization(&me, new).await.unwrap()
}

fn token(name: &str, digest: u8, owner: Uuid) -> NewToken {
    NewToken {
        name: name.to_owned(),
        digest: [digest; 32],
        owner,
        expires_at_ms: None,
    }
}

fn viewer(entity: &str) -> NewRole {
    NewRole {
        role: "Viewer".to_owned(),
        entity_type: "Control Planes".to_owned(),
        entity: entity.to_owned(),
        region: "*".to_owned(),
    }
}

pub(crate) async fn tokens_are_found_by_digest_until_they_are_removed(store: Store) {
    let me = actor();
    assert_eq!(
        store.organization().await.unwrap_err(),
        StoreError::NotFound
    );
    let organization = organization(&store).await;
    let again = NewOrganization {
        name: "second".to_owned(),
        owner_email: "x@localhost".to_owned(),
        owner_full_name: "X".to_owned(),
    };
    let again = store.ensure_organization(&me, again).await.unwrap();
    assert_eq!(again, organization);
    assert_eq!(store.organization().await.unwrap(), organization);
    let owner = organization.owner.id;
    let create = async |new| store.create_token(&me, new).await;
    let made = create(token("laptop", 1, owner)).await.unwrap();
    assert_eq!(made.owner, Owner::User(organization.owner));
    let found = store.bearer([1; 32]).await.unwrap().unwrap();
    assert!(found.is_owner);
    assert_eq!(found.token, made);
    assert_eq!(store.bearer([2; 32]).await.unwrap(), None);
    let clash = create(token("laptop", 2, owner)).await.unwrap_err();
    assert_eq!(clash, taken("name", "laptop"));
    let clash = create(token("desk", 1, owner)).await.unwrap_err();
    assert_eq!(clash, taken("token", "laptop"));
    let nobody = create(token("desk", 3, Uuid::new_v4())).await.unwrap_err();
    assert_eq!(nobody, StoreError::NotFound);
    let listed = store.tokens(None).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&made));
    store.delete_token(&me, made.id).await.unwrap();
    assert_eq!(store.bearer([1; 32]).await.unwrap(), None);
    let gone = store.delete_token(&me, made.id).await.unwrap_err();
    assert_eq!(gone, StoreError::NotFound);
}

pub(crate) async fn tokens_end_by_time_by_hand_and_with_their_owner(store: Store) {
    let me = actor();
    organization(&store).await;
    let (email, name) = ("ann@example.com".to_owned(), "Ann".to_owned());
    let user = store.create_user(&me, email, name).await.unwrap();
    let mut new = token("short", 1, user.id);
    new.expires_at_ms = Some(1_000);
    let short = store.create_token(&me, new).await.unwrap();
    assert!(short.is_good(999) && !short.is_good(1_000));
    let long = token("long", 2, user.id);
    let long = store.create_token(&me, long).await.unwrap();
    assert!(long.is_good(i64::MAX) && long.last_used_at_ms.is_none());
    store.token_used(long.id).await.unwrap();
    let used = store.bearer([2; 32]).await.unwrap().unwrap();
    assert!(used.token.last_used_at_ms.is_some());
    let name = store.rename_token(&me, long.id, "short".to_owned());
    assert_eq!(name.await.unwrap_err(), taken("name", "short"));
    let name = store.rename_token(&me, long.id, "other".to_owned());
    assert_eq!(name.await.unwrap().name, "other");
    let revoked = store.revoke_token(&me, long.id, "me".to_owned());
    let revoked = revoked.await.unwrap();
    assert!(!revoked.is_good(0));
    let again = store.revoke_token(&me, long.id, "you".to_owned());
    assert_eq!(again.await.unwrap(), revoked, "the first one stands");
    let asleep = UserUpdate {
        active: Some(false),
        ..UserUpdate::default()
    };
    store.update_user(&me, user.id, asleep).await.unwrap();
    let found = store.bearer([1; 32]).await.unwrap().unwrap();
    assert!(!found.token.is_good(0), "its owner is not active");
    store.delete_user(&me, user.id).await.unwrap();
    assert_eq!(store.tokens(Some(user.id)).await.unwrap(), []);
}

pub(crate) async fn people_are_added_changed_and_removed(store: Store) {
    let me = actor();
    let owner = organization(&store).await.owner;
    let create = async |email: &str| {
        let (email, name) = (email.to_owned(), "Ann".to_owned());
        store.create_user(&me, email, name).await
    };
    let ann = create("ann@example.com").await.unwrap();
    let clash = create("ann@example.com").await.unwrap_err();
    assert_eq!(clash, taken("email", "ann@example.com"));
    let update = UserUpdate {
        full_name: Some("Ann B".to_owned()),
        preferred_name: Some(Some("A".to_owned())),
        active: None,
    };
    let changed = store.update_user(&me, ann.id, update).await.unwrap();
    assert_eq!(changed.preferred_name.as_deref(), Some("A"));
    assert_eq!(store.user(ann.id).await.unwrap(), changed);
    assert_eq!(store.users().await.unwrap().len(), 2);
    let kept = store.delete_user(&me, owner.id).await.unwrap_err();
    assert_eq!(kept, StoreError::NotFound, "the owner stays");
    store.delete_user(&me, ann.id).await.unwrap();
    let gone = store.user(ann.id).await.unwrap_err();
    assert_eq!(gone, StoreError::NotFound);
}

pub(crate) async fn roles_come_from_the_holder_and_its_teams(store: Store) {
    let me = actor();
    organization(&store).await;
    let wanted = vec![("Organization Admin".to_owned(), "all".to_owned())];
    for _ in 0..2 {
        store.ensure_teams(&me, wanted.clone()).await.unwrap();
    }
    let [predefined] = store.teams().await.unwrap().try_into().unwrap();
    assert!(predefined.predefined);
    let name = "ci".to_owned();
    let account = store
        .create_system_account(&me, name.clone(), String::new())
        .await
        .unwrap();
    let clash = store
        .create_system_account(&me, name, String::new())
        .await
        .unwrap_err();
    assert_eq!(clash, taken("name", "ci"));
    let new = token("t", 1, account.id);
    store.create_token(&me, new).await.unwrap();
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let team = store
        .create_team(&me, "ops".to_owned(), String::new(), labels)
        .await
        .unwrap();
    let (of_team, of_account) = (Holder::Team(team.id), Holder::SystemAccount(account.id));
    for _ in 0..2 {
        store.assign_role(&me, of_team, viewer("*")).await.unwrap();
        store.join_team(&me, team.id, of_account).await.unwrap();
    }
    store
        .join_team(&me, predefined.id, of_account)
        .await
        .unwrap();
    let own = store.assign_role(&me, of_account, viewer("x"));
    let own = own.await.unwrap();
    let bearer = store.bearer([1; 32]).await.unwrap().unwrap();
    let mut entities: Vec<&str> = bearer
        .roles
        .iter()
        .map(|held| held.role.entity.as_str())
        .collect();
    entities.sort_unstable();
    assert_eq!(entities, ["*", "x"]);
    assert_eq!(bearer.predefined_teams, ["Organization Admin"]);
    assert!(!bearer.is_owner);
    assert_eq!(
        store.team_accounts(team.id).await.unwrap(),
        std::slice::from_ref(&account)
    );
    assert_eq!(store.teams_of(of_account).await.unwrap().len(), 2);
    let held = store.assigned_roles(of_account).await.unwrap();
    assert_eq!(held, std::slice::from_ref(&own));
    let other = store.unassign_role(&me, of_team, own.id).await;
    assert_eq!(other.unwrap_err(), StoreError::NotFound, "another holder's");
    store.unassign_role(&me, of_account, own.id).await.unwrap();
    store.leave_team(&me, team.id, of_account).await.unwrap();
    let left = store.leave_team(&me, team.id, of_account).await;
    assert_eq!(left.unwrap_err(), StoreError::NotFound);
    let update = NameUpdate {
        name: Some("ops2".to_owned()),
        ..NameUpdate::default()
    };
    let renamed = store
        .update_team(&me, team.id, update.clone())
        .await
        .unwrap();
    assert_eq!((renamed.name.as_str(), renamed.labels.len()), ("ops2", 1));
    let renamed = store.update_system_account(&me, account.id, update);
    assert_eq!(renamed.await.unwrap().name, "ops2");
    store.delete_team(&me, team.id).await.unwrap();
    store.delete_system_account(&me, account.id).await.unwrap();
    assert_eq!(store.bearer([1; 32]).await.unwrap(), None);
    assert_eq!(store.team_accounts(predefined.id).await.unwrap(), []);
    let nobody = store.assign_role(&me, of_team, viewer("*")).await;
    assert_eq!(nobody.unwrap_err(), StoreError::NotFound);
}

pub(crate) async fn a_setting_is_read_back(store: Store) {
    let me = actor();
    let owner = organization(&store).await.owner;
    assert_eq!(store.setting("ip_allow_list").await.unwrap(), None);
    for value in [json!({"enabled": true}), json!({"enabled": false})] {
        store
            .set_setting(&me, "ip_allow_list", value.clone())
            .await
            .unwrap();
        let found = store.setting("ip_allow_list").await.unwrap();
        assert_eq!(found.as_ref(), Some(&value));
    }
    let new = token("t", 1, owner.id);
    store.create_token(&me, new).await.unwrap();
    let bearer = store.bearer([1; 32]).await.unwrap().unwrap();
    assert_eq!(bearer.ip_allow_list, Some(json!({"enabled": false})));
}
