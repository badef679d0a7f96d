//! Control planes and what hangs on them, as clients see them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use http::Method;
use sallyport_runtime::certs::{Curve, data_plane_pair};
use serde_json::{Value, json};
use support::{Answer, BASE, Lab};

const NOWHERE: &str = "99999999-9999-4999-8999-999999999999";

/// Both examples of the documentation of ports and host names, with the values that say nothing
/// about their form left out. The second one is older and lacks a member.
fn documented() -> [Value; 2] {
    let shape = |cluster_type: &str| {
        json!({
            "config": {
                "auth_type": "pinned_client_certs",
                "cloud_gateway": false,
                "cluster_type": cluster_type,
                "control_plane_endpoint": "https://example.us.cp0.konghq.com",
                "proxy_urls": [],
                "telemetry_endpoint": "https://example.us.tp0.konghq.com",
            },
            "created_at": "2024-07-24T22:43:31.705Z",
            "description": "",
            "id": "8f0daba0-2246-48fb-8d56-a47ab94saf78",
            "labels": {},
            "name": "Example CP",
            "updated_at": "2024-07-24T22:43:31.705Z",
        })
    };
    let plain = shape("CLUSTER_TYPE_CONTROL_PLANE");
    let mut ingress = shape("CLUSTER_TYPE_K8S_INGRESS_CONTROLLER");
    ingress["config"]
        .as_object_mut()
        .unwrap()
        .remove("proxy_urls");
    [plain, ingress]
}

/// A value with what differs from one control plane to the next put into one form.
fn form(answer: &Value) -> Value {
    fn walk(name: &str, value: &Value) -> Value {
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| (name.clone(), walk(name, value)))
                .collect(),
            Value::String(text) => {
                let same = |sign: char| match sign {
                    '0'..='9' => '0',
                    other => other,
                };
                Value::String(match name {
                    "id" => text
                        .chars()
                        .map(|c| if c == '-' { c } else { 'x' })
                        .collect(),
                    "created_at" | "updated_at" => text.chars().map(same).collect(),
                    "control_plane_endpoint" | "telemetry_endpoint" => {
                        let rest = text.strip_prefix("https://").unwrap();
                        let kind = rest.split('.').nth(2).unwrap();
                        let geo = rest.split('.').nth(1).unwrap();
                        assert_eq!(geo.len(), 2);
                        let domain = rest.splitn(4, '.').nth(3).unwrap();
                        assert!(domain == BASE || domain == "konghq.com", "{domain}");
                        format!("https://PREFIX.GEO.{kind}.BASE")
                    }
                    _ => text.clone(),
                })
            }
            other => other.clone(),
        }
    }
    walk("", answer)
}

#[tokio::test]
async fn the_answer_is_the_documented_one_field_for_field() {
    let lab = Lab::start().await;
    for example in documented() {
        let cluster_type = example["config"]["cluster_type"].clone();
        let body = json!({"name": "Example CP", "cluster_type": cluster_type});
        let made = lab.api(Method::POST, "/v2/control-planes", body).await;
        assert_eq!(made.status, 201, "{made:?}");
        let path = format!("/v2/control-planes/{}", made.body["id"].as_str().unwrap());
        let mut shown = lab.api(Method::GET, &path, Value::Null).await.body;
        if example["config"].get("proxy_urls").is_none() {
            let removed = shown["config"]
                .as_object_mut()
                .unwrap()
                .remove("proxy_urls");
            assert_eq!(removed, Some(json!([])));
        }
        assert_eq!(form(&shown), form(&example));
        let gone = lab.api(Method::DELETE, &path, Value::Null).await;
        assert_eq!(gone.status, 204);
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_certificate_is_put_under_an_id_and_exchanged_there() {
    let lab = Lab::start().await;
    let all = format!("/v2/control-planes/{}/dp-client-certificates", lab.cp());
    let one = format!("{all}/11111111-1111-4111-8111-111111111111");
    let pair = |name: &str| data_plane_pair(name, Curve::P256, 30).unwrap().cert;
    let (old, new) = (pair("old"), pair("new"));
    let put = async |path: &str, cert: &str, title: &str| -> Answer {
        let body = json!({"cert": cert, "title": title});
        lab.api(Method::PUT, path, body).await
    };
    let made = put(&one, &old, "gw").await;
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!(
        made.body["item"]["id"],
        "11111111-1111-4111-8111-111111111111"
    );
    let again = put(&one, &old, "gw").await;
    assert_eq!(again, made);
    let changed = put(&one, &new, "gw 2").await;
    assert_eq!(
        (changed.status, &changed.body["item"]["cert"]),
        (200, &json!(new))
    );
    assert_eq!(changed.body["item"]["title"], "gw 2");
    assert_eq!(
        changed.body["item"]["created_at"],
        made.body["item"]["created_at"]
    );
    let listed = lab.api(Method::GET, &all, Value::Null).await;
    assert_eq!(listed.body["items"], json!([changed.body["item"]]));
    // the old one is free again, the new one is not
    let other = format!("{all}/22222222-2222-4222-8222-222222222222");
    let clash = put(&other, &new, "").await;
    assert_eq!(clash.status, 409, "{clash:?}");
    assert_eq!(put(&other, &old, "").await.status, 200);
    // an id is of one control plane
    let elsewhere = lab
        .api(Method::POST, "/v2/control-planes", json!({"name": "other"}))
        .await;
    let elsewhere = one.replace(&lab.cp(), elsewhere.body["id"].as_str().unwrap());
    let clash = put(&elsewhere, &pair("third"), "").await;
    assert_eq!(clash.status, 409, "{clash:?}");
    assert_eq!(put(&elsewhere, "rubbish", "").await.status, 400);
    assert_eq!(
        put(&format!("{all}/x"), &pair("fourth"), "").await.status,
        404
    );
    lab.stop().await;
}

#[tokio::test]
async fn the_expected_hash_and_version_follow_the_entities() {
    let lab = Lab::start().await;
    let path = format!("/v2/control-planes/{}", lab.cp());
    let ask = async |what: &str| -> Value {
        let answer = lab
            .api(Method::GET, &format!("{path}/{what}"), Value::Null)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let (hash, version) = (
        ask("expected-config-hash").await,
        ask("expected-config-version").await,
    );
    assert_eq!(hash["expected_hash"].as_str().unwrap().len(), 32);
    let text = version["expected_config_version"].as_str().unwrap();
    assert!(text.starts_with("v02_") && text.len() == 32, "{text}");
    lab.core(Method::PUT, "services/s", json!({"host": "h"}))
        .await;
    let later = ask("expected-config-version").await;
    assert_ne!(
        later["expected_config_version"],
        version["expected_config_version"]
    );
    assert_ne!(
        ask("expected-config-hash").await["expected_hash"],
        hash["expected_hash"]
    );
    let gone = format!("/v2/control-planes/{NOWHERE}/expected-config-version");
    let gone = lab.api(Method::GET, &gone, Value::Null).await;
    assert_eq!(gone.status, 404);
    lab.stop().await;
}

/// A group reads as what its data planes get: the members' entities without those that clash.
#[tokio::test]
async fn a_group_shows_the_entities_of_its_members() {
    let lab = Lab::start().await;
    let make = async |body: Value| -> String {
        let made = lab.api(Method::POST, "/v2/control-planes", body).await;
        made.body["id"].as_str().unwrap().to_owned()
    };
    let group =
        make(json!({"name": "all", "cluster_type": "CLUSTER_TYPE_CONTROL_PLANE_GROUP"})).await;
    let (one, two) = (
        make(json!({"name": "one"})).await,
        make(json!({"name": "two"})).await,
    );
    let core = |cp: &str, path: &str| format!("/v2/control-planes/{cp}/core-entities/{path}");
    for (cp, name) in [
        (&one, "orders"),
        (&one, "only-one"),
        (&two, "orders"),
        (&two, "only-two"),
    ] {
        let put = core(cp, &format!("services/{name}"));
        let body = json!({"host": format!("{name}.example"), "tags": [name]});
        let made = lab.api(Method::PUT, &put, body).await;
        assert_eq!(made.status, 200, "{made:?}");
        let routes = core(cp, &format!("services/{name}/routes"));
        let body = json!({"name": format!("{name} {cp}").replace(' ', "."), "paths": ["/"]});
        assert_eq!(lab.api(Method::POST, &routes, body).await.status, 201);
    }
    let read = async |path: &str| lab.api(Method::GET, &core(&group, path), Value::Null).await;
    let names = |answer: &Answer| -> Vec<String> {
        let data = answer.body["data"].as_array().unwrap();
        let mut names: Vec<String> = data
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(
        names(&read("services").await),
        Vec::<String>::new(),
        "no members yet"
    );
    let members = format!("/v2/control-planes/{group}/group-memberships");
    let body = json!({"members": [{"id": one}, {"id": two}]});
    assert_eq!(lab.api(Method::PUT, &members, body).await.status, 204);

    assert_eq!(
        names(&read("services").await),
        ["only-one", "only-two", "orders"]
    );
    assert_eq!(names(&read("services?tags=only-two").await), ["only-two"]);
    assert_eq!(
        names(&read("routes").await).len(),
        3,
        "not that of what clashes"
    );
    assert_eq!(
        names(&read("services/only-two/routes").await),
        [format!("only-two.{two}")]
    );
    // by name and by id, of whichever member counts
    let orders = read("services/orders").await;
    let of_one = lab
        .api(Method::GET, &core(&one, "services/orders"), Value::Null)
        .await;
    assert_eq!((orders.status, &orders.body), (200, &of_one.body));
    let id = |answer: &Answer| answer.body["id"].as_str().unwrap().to_owned();
    assert_eq!(
        read(&format!("services/{}", id(&orders))).await.body,
        orders.body
    );
    let of_two = lab
        .api(Method::GET, &core(&two, "services/orders"), Value::Null)
        .await;
    assert_eq!(read(&format!("services/{}", id(&of_two))).await.status, 404);
    // pages
    let mut seen = Vec::new();
    let mut next = core(&group, "services?size=1");
    loop {
        let page = lab.api(Method::GET, &next, Value::Null).await;
        assert_eq!(page.status, 200, "{page:?}");
        seen.extend(names(&page));
        match page.body["next"].as_str() {
            Some(path) => next = path.to_owned(),
            None => break,
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ["only-one", "only-two", "orders"]);
    // and it is read only
    let refused = lab
        .api(
            Method::DELETE,
            &core(&group, "services/orders"),
            Value::Null,
        )
        .await;
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!(7)));
    let past = read("services?as_of=1").await;
    assert_eq!(past.status, 400, "{past:?}");
    let reason = past.body["message"].as_str().unwrap();
    assert!(reason.contains("those of its members"), "{reason}");
    // its versions are told all the same, with who made them
    let versions = format!("/v2/control-planes/{group}/versions");
    let told = lab.api(Method::GET, &versions, Value::Null).await;
    let newest = &told.body["data"][0];
    assert!(newest["version"].as_u64().unwrap() >= 1, "{told:?}");
    assert!(newest["actor"].is_string() && newest["created_at"].is_string());
    let one = format!("{versions}/{}", newest["version"]);
    let shown = lab.api(Method::GET, &one, Value::Null).await;
    assert_eq!((shown.status, &shown.body), (200, newest));
    let compared = lab
        .api(Method::GET, &format!("{one}/changes"), Value::Null)
        .await;
    assert_eq!(compared.status, 400, "{compared:?}");
    lab.stop().await;
}

/// Another installation's token, however right it is there, is as one that nobody made.
#[tokio::test]
async fn a_token_of_another_organization_opens_nothing() {
    let (here, elsewhere) = (Lab::start().await, Lab::start().await);
    let cp = here.cp();
    for path in [
        "/v2/control-planes".to_owned(),
        format!("/v2/control-planes/{cp}"),
        format!("/v2/control-planes/{cp}/core-entities/services"),
        "/v3/organizations/me".to_owned(),
        "/v3/users".to_owned(),
        "/metrics".to_owned(),
    ] {
        let theirs = here
            .request(Method::GET, &path, Some(&elsewhere.first.token), "")
            .await;
        let nobodys = here
            .request(Method::GET, &path, Some("kpat_nobody"), "")
            .await;
        assert_eq!(theirs.status, 401, "{path}: {theirs:?}");
        let without_trace = |answer: &Answer| {
            let mut body = answer.body.clone();
            if let Some(members) = body.as_object_mut() {
                members.remove("instance");
            }
            body
        };
        assert_eq!(without_trace(&theirs), without_trace(&nobodys), "{path}");
    }
    here.stop().await;
    elsewhere.stop().await;
}

/// What decK from 1.27 on calls in its Konnect mode, in its order, as its source has it: the name
/// of the control plane, the whole read set, schemas, writes by id, deletions from the bottom up.
#[tokio::test]
async fn the_calls_of_decks_konnect_mode_work_one_by_one() {
    let lab = Lab::start().await;
    let me = lab
        .api(Method::GET, "/v2/organizations/me", Value::Null)
        .await;
    assert!(
        me.body["name"].is_string() && me.body["id"].is_string(),
        "ping: {me:?}"
    );
    let groups = "/konnect-api/api/runtime_groups";
    let groups = lab.api(Method::GET, groups, Value::Null).await;
    assert_eq!(
        groups.body["data"][0],
        json!({"id": lab.cp(), "name": "default"})
    );
    assert_eq!(groups.body["page"], groups.body["pageCount"]);
    let get = async |path: &str| lab.core(Method::GET, path, Value::Null).await;
    for list in [
        "services",
        "routes",
        "plugins",
        "certificates",
        "snis",
        "upstreams",
        "targets",
        "consumers",
        "ca_certificates",
        "key-auths",
        "hmac-auths",
        "jwts",
        "basic-auths",
        "acls",
        "keys",
        "key-sets",
    ] {
        for query in ["?size=1000", "?size=1000&tags=a%2Cb"] {
            let answer = get(&format!("{list}{query}")).await;
            assert_eq!(
                (answer.status, &answer.body["data"]),
                (200, &json!([])),
                "{list}"
            );
            assert!(
                answer.body["offset"].is_null(),
                "an empty text would be a page: {list}"
            );
        }
    }
    // what may be missing is a 404 or one of what else it goes on after
    for list in [
        "partials",
        "mtls-auths",
        "degraphql_routes",
        "custom-plugins",
        "filter-chains",
    ] {
        assert_eq!(
            get(&format!("{list}?size=1000")).await.status,
            404,
            "{list}"
        );
    }
    assert_eq!(get("workspaces/team").await.status, 404, "-w");
    assert_eq!(get(&format!("certificates/{NOWHERE}")).await.status, 404);
    for document in ["service", "route", "upstream", "target"] {
        let answer = get(&format!("v1/schemas/json/{document}")).await;
        assert!(
            answer.body["properties"].is_object(),
            "{document}: {answer:?}"
        );
    }
    let schema = get("schemas/plugins/key-auth").await;
    let fields = schema.body["fields"].as_array().unwrap();
    assert!(
        fields.iter().any(|it| it["config"]["type"] == "record"),
        "{schema:?}"
    );

    let id = |number: u8| format!("0dc6f45b-8f8d-40d2-a504-4735440000{number:02}");
    let pair = data_plane_pair("sign", Curve::P256, 30).unwrap();
    let writes = [
        ("consumers", id(1), json!({"username": "alice"})),
        ("key-sets", id(2), json!({"name": "set"})),
        (
            "services",
            id(3),
            json!({"name": "s", "host": "h", "port": 80, "protocol": "http"}),
        ),
        ("upstreams", id(4), json!({"name": "u"})),
        (
            "keys",
            id(5),
            json!({"kid": "1", "name": "k", "set": {"id": id(2)}, "pem": {"private_key": pair.key}}),
        ),
        (
            &format!("consumers/{}/key-auth", id(1)),
            id(6),
            json!({"key": "secret", "consumer": {"id": id(1), "username": "alice"}}),
        ),
        (
            "routes",
            id(7),
            json!({"name": "r", "paths": ["/r"], "service": {"id": id(3)}}),
        ),
        (
            &format!("upstreams/{}/targets", id(4)),
            id(8),
            json!({"target": "10.0.0.1:80", "weight": 100, "upstream": {"id": id(4)}}),
        ),
        (
            "plugins",
            id(9),
            json!({"name": "key-auth", "config": {}, "route": {"id": id(7)}, "enabled": true}),
        ),
    ];
    for (collection, own, body) in &writes {
        let mut body = body.clone();
        body["id"] = json!(own);
        let path = format!("{collection}/{own}");
        let made = lab.core(Method::PUT, &path, body.clone()).await;
        assert_eq!(
            (made.status, &made.body["id"]),
            (200, &json!(own)),
            "{made:?}"
        );
        // sent again with what was read, as a repeated sync does
        let again = lab.core(Method::PUT, &path, made.body.clone()).await;
        assert_eq!(again.body, made.body, "{collection}");
        assert!(made.body["created_at"].is_number(), "{collection}");
    }
    let below = get("key-sets/set/keys").await;
    assert_eq!(below.body["data"][0]["id"], json!(id(5)), "{below:?}");
    assert_eq!(get("keys/k").await.body["set"], json!({"id": id(2)}));
    for (collection, own, _) in writes.iter().rev() {
        let path = format!("{collection}/{own}");
        assert_eq!(
            lab.core(Method::DELETE, &path, Value::Null).await.status,
            204,
            "{path}"
        );
    }
    for validated in [
        "services",
        "routes",
        "plugins",
        "consumers",
        "keys",
        "key_sets",
    ] {
        let path = format!("schemas/{validated}/validate");
        let answer = lab.core(Method::POST, &path, json!({"nonsense": 1})).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(
            answer.body["message"]
                .as_str()
                .unwrap()
                .contains("nonsense"),
            "{answer:?}"
        );
    }
    lab.stop().await;
}

/// Keys go with their set, and one kid is there once in a set.
#[tokio::test]
async fn keys_live_in_key_sets() {
    let lab = Lab::start().await;
    let pem = || json!({"private_key": data_plane_pair("sign", Curve::P256, 30).unwrap().key});
    let set = lab.core(Method::PUT, "key-sets/signing", json!({})).await;
    assert_eq!(set.status, 200, "{set:?}");
    let body = json!({"kid": "1", "name": "first", "pem": pem()});
    let made = lab.core(Method::POST, "key-sets/signing/keys", body).await;
    assert_eq!(
        (made.status, &made.body["set"]["id"]),
        (201, &set.body["id"])
    );
    let twin = json!({"kid": "1", "pem": pem()});
    let clash = lab
        .core(Method::POST, "key-sets/signing/keys", twin.clone())
        .await;
    assert_eq!(clash.status, 400, "{clash:?}");
    let alone = lab.core(Method::POST, "keys", twin).await;
    assert_eq!(
        alone.status, 201,
        "without a set it is another one: {alone:?}"
    );
    let shown = lab
        .core(Method::GET, "key-sets/signing/keys/first", Value::Null)
        .await;
    assert_eq!(shown.body, made.body);
    let gone = lab
        .core(Method::DELETE, "key-sets/signing", Value::Null)
        .await;
    assert_eq!(gone.status, 204);
    let left = lab.core(Method::GET, "keys", Value::Null).await;
    assert_eq!(left.body["data"], json!([alone.body]));
    for (path, part) in [
        ("partials", "enterprise edition"),
        ("plugin-schemas", "part of the executable"),
    ] {
        let refused = lab.core(Method::POST, path, json!({"name": "x"})).await;
        assert_eq!(refused.status, 400);
        let message = refused.body["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
    }
    lab.stop().await;
}
