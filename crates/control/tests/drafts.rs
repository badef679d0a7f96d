//! Drafts, batches and groups over the API.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Answer, Lab};

const A: &str = "11111111-1111-4111-8111-111111111111";
const B: &str = "22222222-2222-4222-8222-222222222222";

impl Lab {
    async fn call(&self, method: Method, path: &str, body: Value, status: u16) -> Answer {
        let answer = self.api(method, path, body).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        answer
    }

    /// Names of the services of a control plane.
    async fn services(&self, cp: &str) -> Vec<String> {
        let path = format!("/v2/control-planes/{cp}/core-entities/services");
        let answer = self.call(Method::GET, &path, Value::Null, 200).await;
        let data = answer.body["data"].as_array().unwrap().iter();
        data.map(|it| it["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A new control plane's id.
    async fn control_plane(&self, body: Value) -> String {
        let made = self
            .call(Method::POST, "/v2/control-planes", body, 201)
            .await;
        made.body["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_draft_is_written_to_compared_and_promoted() {
    let lab = Lab::start().await;
    let cp = lab.cp();
    lab.core(Method::PUT, "services/old", json!({"host": "h"}))
        .await;
    let drafts = format!("/v2/control-planes/{cp}/drafts");
    let made = lab
        .call(Method::POST, &drafts, json!({"name": "big"}), 201)
        .await;
    assert_eq!(
        (&made.body["control_plane_id"], &made.body["base_version"]),
        (&json!(cp), &json!(1))
    );
    let id = made.body["id"].as_str().unwrap().to_owned();
    let one = format!("{drafts}/{id}");
    lab.call(Method::POST, &drafts, json!({"name": "big"}), 409)
        .await;
    lab.call(Method::POST, &drafts, json!({"name": "a/b"}), 400)
        .await;
    let nested = format!("/v2/control-planes/{id}/drafts");
    lab.call(Method::POST, &nested, json!({"name": "x"}), 409)
        .await;
    let elsewhere = lab.control_plane(json!({"name": "other"})).await;
    let elsewhere = format!("/v2/control-planes/{elsewhere}/drafts/{id}");
    lab.call(Method::GET, &elsewhere, Value::Null, 404).await;
    // it is in no list of control planes, but clients that know names find it
    let listed = lab
        .call(Method::GET, "/v2/control-planes", Value::Null, 200)
        .await;
    assert!(!listed.body.to_string().contains(&id));
    let groups = "/konnect-api/api/runtime_groups";
    let found = lab.call(Method::GET, groups, Value::Null, 200).await;
    let named = json!({"id": id, "name": "default/big"});
    assert!(found.body["data"].as_array().unwrap().contains(&named));

    let core = format!("/v2/control-planes/{id}/core-entities");
    let path = format!("{core}/services/new");
    lab.call(Method::PUT, &path, json!({"host": "h"}), 200)
        .await;
    lab.call(
        Method::DELETE,
        &format!("{core}/services/old"),
        Value::Null,
        204,
    )
    .await;
    assert_eq!(lab.services(&cp).await, ["old"], "the origin is as it was");
    let changes = lab
        .call(Method::GET, &format!("{one}/changes"), Value::Null, 200)
        .await;
    let mut operations: Vec<&str> = changes.body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["operation"].as_str().unwrap())
        .collect();
    operations.sort_unstable();
    assert_eq!(operations, ["create", "delete"]);
    let promote = format!("{one}/promote");
    lab.call(Method::POST, &promote, json!({"expected_version": 7}), 409)
        .await;
    let done = lab
        .call(Method::POST, &promote, json!({"expected_version": 1}), 200)
        .await;
    assert_eq!(done.body, json!({"version": 2, "changes": 2}));
    assert_eq!(lab.services(&cp).await, ["new"]);
    lab.call(Method::GET, &one, Value::Null, 404).await;

    // what both changed, differently, is named
    let made = lab
        .call(Method::POST, &drafts, json!({"name": "late"}), 201)
        .await;
    let id = made.body["id"].as_str().unwrap().to_owned();
    let path = format!("/v2/control-planes/{id}/core-entities/services/new");
    lab.call(Method::PUT, &path, json!({"host": "here"}), 200)
        .await;
    lab.core(Method::PUT, "services/new", json!({"host": "there"}))
        .await;
    let promote = format!("{drafts}/{id}/promote");
    let refused = lab.call(Method::POST, &promote, Value::Null, 409).await;
    assert!(
        refused.body["detail"]
            .as_str()
            .unwrap()
            .contains("was changed in the draft")
    );
    lab.call(Method::DELETE, &format!("{drafts}/{id}"), Value::Null, 204)
        .await;
    let listed = lab.call(Method::GET, &drafts, Value::Null, 200).await;
    assert_eq!(listed.body["data"], json!([]));
    lab.stop().await;
}

#[tokio::test]
async fn a_batch_is_one_version_or_nothing() {
    let lab = Lab::start().await;
    let cp = lab.cp();
    let path = format!("/v2/control-planes/{cp}/core-entities:batch");
    // a route may stand before its service, and refer to its parent by id
    let body = json!({"operations": [
        {"method": "PUT", "path": format!("services/{A}/routes/{B}"),
         "body": {"name": "r", "paths": ["/r"]}},
        {"method": "PUT", "path": format!("services/{A}"), "body": {"name": "s", "host": "h"}},
        {"method": "POST", "path": "consumers", "body": {"username": "ann"}},
    ]});
    let done = lab.call(Method::POST, &path, body.clone(), 200).await;
    assert_eq!(
        (&done.body["version"], &done.body["changes"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(done.body["results"][0]["service"]["id"], A);
    let replay = json!({"operations": &body["operations"].as_array().unwrap()[..2]});
    let again = lab.call(Method::POST, &path, replay, 200).await;
    assert_eq!(
        (&again.body["version"], &again.body["changes"]),
        (&json!(1), &json!(0))
    );

    for (operations, said) in [
        (
            json!([{"method": "PUT", "path": "services/x", "body": {}}]),
            "operations[0]",
        ),
        (
            json!([{"method": "PATCH", "path": "services/x", "body": {}}]),
            "a batch takes",
        ),
        (
            json!([{"method": "PUT", "path": "../services/x", "body": {}}]),
            "a batch takes",
        ),
        (
            json!([{"method": "GET", "path": "services", "body": {}}]),
            "a batch takes",
        ),
        (
            json!([{"method": "PUT", "path": "services/x"}]),
            "must be a JSON object",
        ),
        (
            json!([{"method": "DELETE", "path": "services/s"}]),
            "references",
        ),
        (
            json!([{"method": "PUT", "path": "services/ok", "body": {"host": "h"}},
                   {"method": "POST", "path": "consumers", "body": {"username": "ann"}}]),
            "username",
        ),
    ] {
        let refused = lab
            .api(Method::POST, &path, json!({"operations": operations}))
            .await;
        assert_eq!(refused.status, 400, "{refused:?}");
        let message = refused.body["message"].as_str().unwrap();
        assert!(message.contains(said), "{message}");
    }
    assert_eq!(lab.services(&cp).await, ["s"]);
    let stale = json!({"expected_version": 0, "operations": []});
    lab.call(Method::POST, &path, stale, 409).await;
    let gone = json!({"operations": [
        {"method": "DELETE", "path": "services/s"},
        {"method": "DELETE", "path": "routes/r"},
        {"method": "DELETE", "path": "routes/never-was"},
    ]});
    let done = lab.call(Method::POST, &path, gone, 200).await;
    assert_eq!(
        (&done.body["version"], &done.body["changes"]),
        (&json!(2), &json!(2))
    );
    lab.stop().await;
}

#[tokio::test]
async fn a_group_has_members_and_says_what_clashes() {
    let lab = Lab::start().await;
    let group = json!({"name": "all", "cluster_type": "CLUSTER_TYPE_CONTROL_PLANE_GROUP"});
    let group = lab.control_plane(group).await;
    let (a, b) = (
        lab.control_plane(json!({"name": "one"})).await,
        lab.control_plane(json!({"name": "two"})).await,
    );
    for cp in [&a, &b] {
        let path = format!("/v2/control-planes/{cp}/core-entities/services/orders");
        lab.call(Method::PUT, &path, json!({"host": "h"}), 200)
            .await;
    }
    let path = format!("/v2/control-planes/{group}");
    let members = format!("{path}/group-memberships");
    let ids = |ids: &[&str]| {
        let list: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
        json!({"members": list})
    };
    lab.call(Method::PUT, &members, ids(&[&a]), 204).await;
    lab.call(Method::POST, &format!("{members}/add"), ids(&[&b]), 204)
        .await;
    let first = lab
        .call(
            Method::GET,
            &format!("{members}?page[size]=1"),
            Value::Null,
            200,
        )
        .await;
    assert_eq!(first.body["data"][0]["id"], json!(a));
    let next = first.body["meta"]["page"]["next"].as_str().unwrap();
    let second = format!("{members}?page[size]=1&page[after]={next}");
    let second = lab.call(Method::GET, &second, Value::Null, 200).await;
    assert_eq!(second.body["data"][0]["id"], json!(b));
    assert_eq!(
        second.body["meta"]["page"],
        json!({"next": null, "size": 1, "total": 2})
    );
    let status = lab
        .call(
            Method::GET,
            &format!("{path}/group-status"),
            Value::Null,
            200,
        )
        .await;
    let item = &status.body["item"];
    assert_eq!(
        (&item["state"], &item["conflicts"][0]["cluster_id"]),
        (&json!("CONFLICT"), &json!(b))
    );
    lab.call(Method::POST, &format!("{members}/remove"), ids(&[&b]), 204)
        .await;
    let status = lab
        .call(
            Method::GET,
            &format!("{path}/group-status"),
            Value::Null,
            200,
        )
        .await;
    assert_eq!(status.body["item"]["state"], "OK");
    let is_member = format!("/v2/control-planes/{a}/group-member-status");
    let answer = lab.call(Method::GET, &is_member, Value::Null, 200).await;
    assert_eq!(answer.body, json!({"is_member": true}));

    // the hash of its data planes follows the members
    let hash = format!("{path}/expected-config-hash");
    let before = lab.call(Method::GET, &hash, Value::Null, 200).await;
    let service = format!("/v2/control-planes/{a}/core-entities/services/more");
    lab.call(Method::PUT, &service, json!({"host": "h"}), 200)
        .await;
    let after = lab.call(Method::GET, &hash, Value::Null, 200).await;
    assert_ne!(after.body["expected_hash"], before.body["expected_hash"]);

    let own = format!("{path}/core-entities/services/own");
    let refused = lab.call(Method::PUT, &own, json!({"host": "h"}), 403).await;
    assert_eq!(refused.body["code"], 7);
    for (path, body, status) in [
        (members.clone(), ids(&[&group]), 400),
        (
            members.clone(),
            ids(&["99999999-9999-4999-8999-999999999999"]),
            404,
        ),
        (members.clone(), json!({"members": [{"id": "x"}]}), 400),
        (members.clone(), json!({}), 400),
        (
            format!("/v2/control-planes/{a}/group-memberships"),
            ids(&[&b]),
            400,
        ),
    ] {
        lab.call(Method::PUT, &path, body, status).await;
    }
    lab.stop().await;
}
