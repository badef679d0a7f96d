//! People, teams, system accounts, roles and tokens over the API.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Answer, Lab};

const NOWHERE: &str = "99999999-9999-4999-8999-999999999999";

impl Answer {
    #[track_caller]
    fn text(&self, pointer: &str) -> String {
        let found = self.body.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

impl Lab {
    /// A call by the owner that must have this status.
    async fn call(&self, method: Method, path: &str, body: Value, status: u16) -> Answer {
        let answer = self.api(method, path, body).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        answer
    }

    /// A call with a token; its status.
    async fn status(&self, method: Method, path: &str, token: &str) -> u16 {
        self.request(method, path, Some(token), "").await.status
    }

    /// A new person with a token: id and token.
    async fn person(&self, email: &str) -> (String, String) {
        let made = self
            .call(Method::POST, "/v3/invites", json!({"email": email}), 201)
            .await;
        let id = made.text("/id");
        let new = json!({"name": "laptop", "ttl_seconds": 86_400});
        let path = format!("/v3/users/{id}/access-tokens");
        let token = self.call(Method::POST, &path, new, 201).await;
        (id, token.text("/konnect_token"))
    }
}

fn viewer(entity: &str) -> Value {
    json!({
        "role_name": "Viewer",
        "entity_type_name": "Control Planes",
        "entity_id": entity,
        "entity_region": "eu",
    })
}

#[tokio::test]
async fn a_person_is_invited_gets_a_role_and_sees_no_more() {
    let lab = Lab::start().await;
    let (ann, token) = lab.person("ann@example.com").await;
    assert!(token.starts_with("kpat_"));
    let me = lab
        .request(Method::GET, "/v3/users/me", Some(&token), "")
        .await;
    assert_eq!(me.text("/email"), "ann@example.com");
    let own = format!("/v2/control-planes/{}", lab.cp());
    let other = lab
        .call(
            Method::POST,
            "/v2/control-planes",
            json!({"name": "other"}),
            201,
        )
        .await;
    let other = format!("/v2/control-planes/{}", other.text("/id"));
    let none = format!("/v2/control-planes/{NOWHERE}");
    let lists = ["/v2/control-planes", "/konnect-api/api/runtime_groups"];
    let seen = async |path: &str| {
        let answer = lab.request(Method::GET, path, Some(&token), "").await;
        answer.body["data"].as_array().unwrap().len()
    };
    // what is there and what is not look the same to somebody who may see neither
    for path in [&own, &other, &none] {
        assert_eq!(lab.status(Method::GET, path, &token).await, 403, "{path}");
    }
    for list in lists {
        assert_eq!(seen(list).await, 0);
    }
    let roles = format!("/v3/users/{ann}/assigned-roles");
    let assigned = lab.call(Method::POST, &roles, viewer(&lab.cp()), 201).await;
    let again = lab.call(Method::POST, &roles, viewer(&lab.cp()), 201).await;
    assert_eq!(again.body, assigned.body, "a replay assigns nothing twice");
    assert_eq!(lab.status(Method::GET, &own, &token).await, 200);
    let services = format!("{own}/core-entities/services");
    assert_eq!(lab.status(Method::GET, &services, &token).await, 200);
    let service = json!({"name": "s", "host": "h"}).to_string();
    let refused = lab
        .request(Method::POST, &services, Some(&token), service)
        .await;
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!(7)));
    for path in [&other, &none] {
        assert_eq!(lab.status(Method::GET, path, &token).await, 403, "{path}");
    }
    for list in lists {
        assert_eq!(seen(list).await, 1);
    }
    assert_eq!(lab.status(Method::DELETE, &own, &token).await, 403);
    assert_eq!(lab.status(Method::GET, "/v3/users", &token).await, 403);
    let one = format!("{roles}/{}", assigned.text("/id"));
    let shown = lab.call(Method::GET, &one, Value::Null, 200).await;
    assert_eq!(shown.body, assigned.body);
    lab.call(Method::DELETE, &one, Value::Null, 204).await;
    assert_eq!(lab.status(Method::GET, &own, &token).await, 403);
    lab.stop().await;
}

#[tokio::test]
async fn whoever_makes_a_control_plane_administers_it_and_no_other() {
    let lab = Lab::start().await;
    let (ann, token) = lab.person("ann@example.com").await;
    let mut creator = viewer("*");
    creator["role_name"] = json!("Creator");
    let roles = format!("/v3/users/{ann}/assigned-roles");
    lab.call(Method::POST, &roles, creator, 201).await;
    let body = json!({"name": "mine"}).to_string();
    let made = lab
        .request(Method::POST, "/v2/control-planes", Some(&token), body)
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let mine = format!("/v2/control-planes/{}", made.text("/id"));
    let default = format!("/v2/control-planes/{}", lab.cp());
    assert_eq!(lab.status(Method::DELETE, &default, &token).await, 403);
    assert_eq!(lab.status(Method::DELETE, &mine, &token).await, 204);
    lab.stop().await;
}

#[tokio::test]
async fn a_token_that_ended_is_as_one_that_never_was() {
    let lab = Lab::start().await;
    let (ann, token) = lab.person("ann@example.com").await;
    let me = "/v3/users/me";
    let never = lab.request(Method::GET, me, Some("kpat_never"), "").await;
    assert_eq!(never.status, 401);
    let same = |mut answer: Answer| {
        answer.body["instance"] = never.body["instance"].clone();
        assert_eq!(answer, never);
    };
    let tokens = format!("/v3/users/{ann}/access-tokens");
    let listed = lab.call(Method::GET, &tokens, Value::Null, 200).await;
    assert_eq!(
        listed.body["data"][0].get("konnect_token"),
        None,
        "shown once"
    );
    assert_eq!(listed.text("/data/0/state"), "ACTIVE");
    assert!(!listed.body.to_string().contains(&token));
    let one = format!("{tokens}/{}", listed.text("/data/0/id"));
    assert_eq!(lab.status(Method::GET, me, &token).await, 200);
    let shown = lab.call(Method::GET, &one, Value::Null, 200).await;
    assert!(shown.body["last_used_at"].is_string(), "{shown:?}");
    let revoke = format!("{one}/revoke");
    let revoked = lab.call(Method::PATCH, &revoke, json!({}), 200).await;
    assert_eq!(revoked.text("/state"), "REVOKED");
    same(lab.request(Method::GET, me, Some(&token), "").await);

    // the other ways to end: expiry, an owner who sleeps, removal of the token, of the owner
    let mut ends = Vec::new();
    for name in ["a", "b", "c"] {
        let new = json!({"name": name, "ttl_seconds": 86_400});
        let made = lab.call(Method::POST, &tokens, new, 201).await;
        ends.push((made.text("/id"), made.text("/konnect_token")));
    }
    lab.call(
        Method::DELETE,
        &format!("{tokens}/{}", ends[0].0),
        Value::Null,
        204,
    )
    .await;
    same(lab.request(Method::GET, me, Some(&ends[0].1), "").await);
    let user = format!("/v3/users/{ann}");
    lab.call(Method::PATCH, &user, json!({"active": false}), 200)
        .await;
    same(lab.request(Method::GET, me, Some(&ends[1].1), "").await);
    lab.call(Method::PATCH, &user, json!({"active": true}), 200)
        .await;
    assert_eq!(lab.status(Method::GET, me, &ends[1].1).await, 200);
    lab.call(Method::DELETE, &user, Value::Null, 204).await;
    same(lab.request(Method::GET, me, Some(&ends[2].1), "").await);
    lab.call(Method::GET, &user, Value::Null, 404).await;
    lab.stop().await;
}

#[tokio::test]
async fn teams_and_system_accounts_share_roles() {
    let lab = Lab::start().await;
    let teams = lab.call(Method::GET, "/v3/teams", Value::Null, 200).await;
    let predefined = teams.body["data"].as_array().unwrap();
    assert!(predefined.iter().all(|team| team["system_team"] == true));
    let admin = predefined
        .iter()
        .find(|team| team["name"] == "Organization Admin")
        .unwrap();
    let admin = format!("/v3/teams/{}", admin["id"].as_str().unwrap());
    lab.call(Method::DELETE, &admin, Value::Null, 409).await;
    let new = json!({"name": "ci", "description": "pipelines"});
    let account = lab
        .call(Method::POST, "/v3/system-accounts", new.clone(), 201)
        .await
        .text("/id");
    // what is not in this build opens nothing, so nobody is let in to wonder
    for (name, what) in [
        ("Portal Admin", "developer portals"),
        ("API Product Admin", "API products"),
        ("API Product Developer", "API products"),
    ] {
        let team = predefined.iter().find(|team| team["name"] == name).unwrap();
        let members = format!("/v3/teams/{}/system-accounts", team["id"].as_str().unwrap());
        let member = json!({"id": account});
        let refused = lab.call(Method::POST, &members, member, 409).await;
        assert!(refused.text("/detail").contains(what));
    }
    lab.call(Method::POST, "/v3/system-accounts", new, 409)
        .await;
    let tokens = format!("/v3/system-accounts/{account}/access-tokens");
    let refused = lab
        .call(
            Method::POST,
            &tokens,
            json!({"name": "t", "expires_at": "x"}),
            400,
        )
        .await;
    assert_eq!(refused.text("/invalid_parameters/0/field"), "expires_at");
    let new = json!({"name": "t", "ttl_seconds": 86_400});
    let token = lab
        .call(Method::POST, &tokens, new, 201)
        .await
        .text("/token");
    assert!(token.starts_with("spat_"));
    let list = "/v3/users";
    assert_eq!(lab.status(Method::GET, list, &token).await, 403);
    let members = format!("{admin}/system-accounts");
    lab.call(Method::POST, &members, json!({"id": account}), 201)
        .await;
    assert_eq!(lab.status(Method::GET, list, &token).await, 200);
    let of = format!("/v3/system-accounts/{account}/teams");
    let of = lab.call(Method::GET, &of, Value::Null, 200).await;
    assert_eq!(of.text("/data/0/name"), "Organization Admin");
    lab.call(
        Method::DELETE,
        &format!("{members}/{account}"),
        Value::Null,
        204,
    )
    .await;
    assert_eq!(lab.status(Method::GET, list, &token).await, 403);

    let team = json!({"name": "readers", "labels": {"env": "prod"}});
    let team = lab
        .call(Method::POST, "/v3/teams", team, 201)
        .await
        .text("/id");
    let (ann, anns) = lab.person("ann@example.com").await;
    let path = format!("/v3/teams/{team}");
    lab.call(
        Method::POST,
        &format!("{path}/users"),
        json!({"id": ann}),
        201,
    )
    .await;
    let bad = lab
        .call(
            Method::POST,
            &format!("{path}/users"),
            json!({"id": NOWHERE}),
            404,
        )
        .await;
    assert_eq!(bad.kind, "application/problem+json");
    let role = lab
        .call(
            Method::POST,
            &format!("{path}/assigned-roles"),
            viewer("*"),
            201,
        )
        .await;
    let own = format!("/v2/control-planes/{}", lab.cp());
    assert_eq!(lab.status(Method::GET, &own, &anns).await, 200);
    let role = format!("{path}/assigned-roles/{}", role.text("/id"));
    lab.call(Method::DELETE, &role, Value::Null, 204).await;
    assert_eq!(lab.status(Method::GET, &own, &anns).await, 403);
    lab.stop().await;
}

#[tokio::test]
async fn bad_input_is_named_and_the_owner_stays() {
    let lab = Lab::start().await;
    let owner = lab.first.organization.owner.id;
    let organization = lab.first.organization.id;
    let user = format!("/v3/users/{owner}");
    lab.call(Method::DELETE, &user, Value::Null, 409).await;
    lab.call(Method::PATCH, &user, json!({"active": false}), 400)
        .await;
    let settings = "/v3/authentication-settings";
    let pats = format!("/v3/organizations/{organization}/personal-access-token-settings");
    let list = format!("/v3/organizations/{organization}/ip-allow-list");
    let roles = format!("{user}/assigned-roles");
    let mut unknown = viewer("*");
    unknown["role_name"] = json!("Emperor");
    for (method, path, body, field) in [
        (Method::POST, "/v3/invites", json!({}), "email"),
        (
            Method::POST,
            "/v3/invites",
            json!({"email": "nobody"}),
            "email",
        ),
        (Method::POST, "/v3/teams", json!({"name": ""}), "name"),
        (
            Method::POST,
            "/v3/teams",
            json!({"name": "x", "nmae": "y"}),
            "nmae",
        ),
        (
            Method::POST,
            "/v3/teams",
            json!({"name": "x", "labels": {"kong-a": "b"}}),
            "labels.kong-a",
        ),
        (Method::POST, &roles, unknown, "role_name"),
        (Method::POST, &roles, viewer("somewhere"), "entity_id"),
        (
            Method::PATCH,
            settings,
            json!({"oidc_auth_enabled": true}),
            "oidc_auth_enabled",
        ),
        (
            Method::PATCH,
            &pats,
            json!({"max_expiration_period_days": 0}),
            "max_expiration_period_days",
        ),
        (
            Method::PUT,
            &list,
            json!({"allowed_ips": ["10.0.0.0/33"]}),
            "allowed_ips[0]",
        ),
    ] {
        let answer = lab.call(method, path, body, 400).await;
        assert_eq!(answer.text("/invalid_parameters/0/field"), field, "{path}");
    }
    let taken = json!({"email": "owner@localhost"});
    lab.call(Method::POST, "/v3/invites", taken, 409).await;
    lab.call(Method::GET, "/v3/teams/../users", Value::Null, 404)
        .await;
    lab.call(Method::GET, "/v3/users/%2e%2e%2fteams", Value::Null, 404)
        .await;
    let elsewhere = format!("/v3/organizations/{NOWHERE}/ip-allow-list");
    lab.call(Method::GET, &elsewhere, Value::Null, 404).await;

    // rules for tokens are kept
    lab.call(
        Method::PATCH,
        &pats,
        json!({"max_expiration_period_days": 7}),
        200,
    )
    .await;
    let tokens = format!("{user}/access-tokens");
    let new = json!({"name": "long", "ttl_seconds": 864_000});
    lab.call(Method::POST, &tokens, new, 400).await;
    lab.call(Method::PATCH, &pats, json!({"pats_enabled": false}), 200)
        .await;
    let new = json!({"name": "short", "ttl_seconds": 86_400});
    lab.call(Method::POST, &tokens, new, 403).await;
    let both = json!({"enabled": true, "allowed_ips": ["192.0.2.0/24"]});
    lab.call(Method::PUT, &list, both.clone(), 201).await;
    let shown = lab.call(Method::GET, &list, Value::Null, 200).await;
    assert_eq!(shown.body, both, "and this machine is not locked out");
    lab.stop().await;
}

#[tokio::test]
async fn a_token_beyond_its_rate_is_told_to_wait() {
    let lab = Lab::start_limited(2).await;
    let mut last = None;
    for _ in 0..200 {
        let answer = lab.api(Method::GET, "/v3/users/me", Value::Null).await;
        if answer.status == 429 {
            last = Some(answer);
            break;
        }
    }
    let refused = last.expect("two a second are fewer than a loop sends");
    assert_eq!(refused.kind, "application/problem+json");
    lab.stop().await;
}

/// Each list of people, teams and system accounts, by each of its filters and in pages.
#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let lab = Lab::start().await;
    let (ann, _) = lab.person("ann@example.com").await;
    let (bob, _) = lab.person("bob@other.example").await;
    let bobs = format!("/v3/users/{bob}");
    let change = json!({"full_name": "Bob the Builder", "active": false});
    lab.call(Method::PATCH, &bobs, change, 200).await;
    for name in ["ci", "ci-nightly", "deploy"] {
        let new = json!({"name": name});
        for path in ["/v3/teams", "/v3/system-accounts"] {
            lab.call(Method::POST, path, new.clone(), 201).await;
        }
    }
    let found = async |path: &str, field: &str| {
        let list = lab.call(Method::GET, path, Value::Null, 200).await;
        let data = list.body["data"].as_array().unwrap();
        let values = data
            .iter()
            .map(|one| one[field].as_str().unwrap().to_owned());
        values.collect::<Vec<String>>()
    };
    for (query, expected) in [
        (format!("filter[id]={ann}"), &["ann@example.com"][..]),
        (
            "filter[email]=bob@other.example".to_owned(),
            &["bob@other.example"],
        ),
        (
            "filter[email][contains]=EXAMPLE.COM".to_owned(),
            &["ann@example.com"],
        ),
        (
            "filter[full_name]=Bob%20the%20Builder".to_owned(),
            &["bob@other.example"],
        ),
        (
            "filter[full_name][contains]=builder".to_owned(),
            &["bob@other.example"],
        ),
        ("filter[active]=false".to_owned(), &["bob@other.example"]),
        (format!("filter[active]=false&filter[id]={ann}"), &[]),
    ] {
        assert_eq!(
            found(&format!("/v3/users?{query}"), "email").await,
            expected,
            "{query}"
        );
    }
    for path in ["/v3/teams", "/v3/system-accounts"] {
        let by = async |query: &str| found(&format!("{path}?{query}"), "name").await;
        assert_eq!(by("filter[name]=ci").await, ["ci"]);
        assert_eq!(by("filter[name][contains]=CI").await, ["ci", "ci-nightly"]);
        assert_eq!(by("filter[name]=nobody").await, Vec::<String>::new());
    }
    for path in ["/v3/users", "/v3/teams", "/v3/system-accounts"] {
        let all = found(path, "id").await;
        let mut seen = Vec::new();
        for number in 1..=all.len().div_ceil(2) {
            let page = format!("{path}?page[size]=2&page[number]={number}");
            let list = lab.call(Method::GET, &page, Value::Null, 200).await;
            assert_eq!(list.body["meta"]["page"]["total"], all.len());
            seen.extend(found(&page, "id").await);
        }
        assert_eq!(seen, all);
        for bad in ["page[size]=0", "page[number]=x", "filter[colour]=red"] {
            let refused = lab
                .call(Method::GET, &format!("{path}?{bad}"), Value::Null, 400)
                .await;
            let named = bad.split('=').next().unwrap();
            assert_eq!(refused.text("/invalid_parameters/0/field"), named);
        }
    }
    lab.stop().await;
}
