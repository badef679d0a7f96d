//! The APIs over TLS: tokens, control planes, entities, errors.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{Answer, BASE, GEO, Lab};

const NOWHERE: &str = "99999999-9999-4999-8999-999999999999";

fn text<'a>(answer: &'a Answer, pointer: &str) -> &'a str {
    answer
        .body
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{answer:?}"))
}

#[tokio::test]
async fn every_path_needs_a_token_and_says_so_in_its_own_form() {
    let lab = Lab::start().await;
    let core = format!("/v2/control-planes/{}/core-entities/services", lab.cp());
    for token in [None, Some("kpat_wrong"), Some("")] {
        let answer = lab.request(Method::GET, &core, token, "").await;
        assert_eq!(answer.status, 401);
        assert_eq!(
            answer.body,
            json!({"message": "Unauthorized", "status": 401})
        );
        let answer = lab
            .request(Method::GET, "/v2/control-planes", token, "")
            .await;
        assert_eq!(
            (answer.status, answer.kind.as_str()),
            (401, "application/problem+json")
        );
        assert_eq!(
            (&answer.body["status"], text(&answer, "/title")),
            (&json!(401), "Unauthorized")
        );
        assert_eq!(
            lab.request(Method::GET, "/no/such/path", token, "")
                .await
                .status,
            401
        );
    }
    assert_eq!(
        lab.api(Method::GET, "/no/such/path", Value::Null)
            .await
            .status,
        404
    );
    lab.stop().await;
}

#[tokio::test]
async fn identity_and_decks_list_come_from_what_is_stored() {
    let lab = Lab::start().await;
    for path in ["/v2/organizations/me", "/v3/organizations/me"] {
        let answer = lab.api(Method::GET, path, Value::Null).await;
        assert_eq!(
            (answer.status, answer.kind.as_str()),
            (200, "application/json")
        );
        assert_eq!(text(&answer, "/id"), lab.first.organization.id.to_string());
        assert_eq!(
            text(&answer, "/owner_id"),
            lab.first.organization.owner.id.to_string()
        );
        assert_eq!(text(&answer, "/name"), lab.first.organization.name);
    }
    let me = lab.api(Method::GET, "/v3/users/me", Value::Null).await;
    assert_eq!(text(&me, "/email"), lab.first.organization.owner.email);
    let groups = "/konnect-api/api/runtime_groups";
    let answer = lab.api(Method::GET, groups, Value::Null).await;
    let expected =
        json!({"data": [{"id": lab.cp(), "name": "default"}], "page": 1, "pageCount": 1});
    assert_eq!(answer.body, expected);
    let answer = lab
        .api(
            Method::GET,
            &format!("{groups}?page=2&size=100"),
            Value::Null,
        )
        .await;
    assert_eq!(answer.body["data"], json!([]));
    lab.stop().await;
}

#[tokio::test]
async fn control_planes_live_and_die() {
    let lab = Lab::start().await;
    let path = "/v2/control-planes";
    let body = json!({"name": "shop", "labels": {"team": "a"}, "description": "x"});
    let made = lab.api(Method::POST, path, body.clone()).await;
    assert_eq!((made.status, made.kind.as_str()), (201, "application/json"));
    let id = text(&made, "/id").to_owned();
    let endpoint = text(&made, "/config/control_plane_endpoint");
    let prefix = endpoint.strip_prefix("https://").unwrap();
    let prefix = prefix.strip_suffix(&format!(".{GEO}.cp0.{BASE}")).unwrap();
    assert_eq!(prefix.len(), 10);
    let telemetry = text(&made, "/config/telemetry_endpoint");
    assert_eq!(telemetry, format!("https://{prefix}.{GEO}.tp0.{BASE}"));
    let config = &made.body["config"];
    assert_eq!(config["cluster_type"], "CLUSTER_TYPE_CONTROL_PLANE");
    assert_eq!(
        (&config["cloud_gateway"], &config["proxy_urls"]),
        (&json!(false), &json!([]))
    );
    assert_eq!(config["auth_type"], "pinned_client_certs");
    assert!(text(&made, "/created_at").ends_with('Z'));

    let clash = lab.api(Method::POST, path, body).await;
    assert_eq!(
        (clash.status, clash.kind.as_str()),
        (409, "application/problem+json")
    );
    assert!(text(&clash, "/detail").contains("shop"));
    let bad = lab.api(Method::POST, path, json!({"nmae": "x"})).await;
    assert_eq!(bad.status, 400);
    assert_eq!(text(&bad, "/invalid_parameters/0/field"), "name");
    assert_eq!(text(&bad, "/invalid_parameters/1/field"), "nmae");

    let one = format!("{path}/{id}");
    assert_eq!(
        lab.api(Method::GET, &one, Value::Null).await.body,
        made.body
    );
    let changed = lab
        .api(Method::PATCH, &one, json!({"description": "y"}))
        .await;
    assert_eq!((changed.status, text(&changed, "/description")), (200, "y"));
    assert_eq!(text(&changed, "/labels/team"), "a");
    let listed = lab
        .api(
            Method::GET,
            &format!("{path}?filter[name][eq]=shop"),
            Value::Null,
        )
        .await;
    assert_eq!(listed.body["data"], json!([changed.body]));
    assert_eq!(
        listed.body["meta"]["page"],
        json!({"number": 1, "size": 100, "total": 1})
    );
    assert_eq!(lab.api(Method::DELETE, &one, Value::Null).await.status, 204);
    for gone in [&one, &format!("{path}/nonsense")] {
        let answer = lab.api(Method::GET, gone, Value::Null).await;
        assert_eq!(
            (answer.status, answer.kind.as_str()),
            (404, "application/problem+json")
        );
    }
    lab.stop().await;
}

#[tokio::test]
async fn entities_are_created_found_replaced_and_deleted() {
    let lab = Lab::start().await;
    let made = lab
        .core(
            Method::POST,
            "services",
            json!({"name": "orders", "host": "h"}),
        )
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(
        (&made.body["port"], &made.body["retries"]),
        (&json!(80), &json!(5))
    );
    assert!(made.body["created_at"].is_u64());
    let id = text(&made, "/id").to_owned();
    for key in ["orders", &id] {
        let found = lab
            .core(Method::GET, &format!("services/{key}"), Value::Null)
            .await;
        assert_eq!((found.status, &found.body), (200, &made.body));
    }
    let body = json!({"name": "orders", "host": "other", "tags": ["a"]});
    let replaced = lab.core(Method::PUT, &format!("services/{id}"), body).await;
    assert_eq!((replaced.status, text(&replaced, "/host")), (200, "other"));
    assert_eq!(replaced.body["created_at"], made.body["created_at"]);
    let again = json!({"host": "third"});
    let replaced = lab.core(Method::PUT, "services/orders", again).await;
    assert_eq!(
        (text(&replaced, "/id"), text(&replaced, "/name")),
        (&*id, "orders")
    );
    assert_eq!(
        replaced.body["tags"],
        Value::Null,
        "what is not sent is reset"
    );
    let named = lab
        .core(Method::PUT, "services/fresh", json!({"host": "h"}))
        .await;
    assert_eq!((named.status, text(&named, "/name")), (200, "fresh"));

    let chosen = "22222222-2222-4222-8222-222222222222";
    let body = json!({"id": chosen, "name": "chosen", "url": "https://h.test:444/p"});
    let made = lab
        .core(Method::PUT, &format!("services/{chosen}"), body)
        .await;
    assert_eq!(
        (text(&made, "/host"), &made.body["port"]),
        ("h.test", &json!(444))
    );
    let clash = lab
        .core(Method::POST, "services", json!({"id": chosen, "host": "h"}))
        .await;
    assert_eq!(
        (clash.status, text(&clash, "/details/0/field")),
        (400, "id")
    );
    let other = json!({"id": NOWHERE, "host": "h"});
    let answer = lab
        .core(Method::PUT, &format!("services/{chosen}"), other)
        .await;
    assert_eq!(answer.status, 400);

    for _ in 0..2 {
        let gone = lab
            .core(Method::DELETE, "services/fresh", Value::Null)
            .await;
        assert_eq!((gone.status, gone.body), (204, Value::Null));
    }
    let missing = lab.core(Method::GET, "services/fresh", Value::Null).await;
    assert_eq!(
        (missing.status, missing.body),
        (404, json!({"code": 5, "message": "", "details": []}))
    );
    lab.stop().await;
}

#[tokio::test]
async fn nested_paths_refer_to_their_parent() {
    let lab = Lab::start().await;
    lab.core(Method::PUT, "services/s", json!({"host": "h"}))
        .await;
    lab.core(Method::PUT, "services/t", json!({"host": "h"}))
        .await;
    let route = json!({"name": "r", "paths": ["/r"]});
    let route = lab.core(Method::POST, "services/s/routes", route).await;
    assert_eq!(route.status, 201, "{route:?}");
    let plugin = lab
        .core(
            Method::POST,
            "routes/r/plugins",
            json!({"name": "key-auth"}),
        )
        .await;
    assert_eq!(plugin.body["route"]["id"], route.body["id"], "{plugin:?}");
    let count = async |path: &str| {
        let answer = lab.core(Method::GET, path, Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body["data"].as_array().unwrap().len()
    };
    assert_eq!(count("services/s/routes").await, 1);
    assert_eq!(count("services/t/routes").await, 0);
    assert_eq!(count("routes").await, 1);
    assert_eq!(count("routes/r/plugins").await, 1);
    assert_eq!(
        lab.core(Method::GET, "services/t/routes/r", Value::Null)
            .await
            .status,
        404
    );
    assert_eq!(
        lab.core(Method::GET, "services/x/routes", Value::Null)
            .await
            .status,
        404
    );

    lab.core(Method::PUT, "consumers/alice", json!({})).await;
    let key = lab
        .core(Method::POST, "consumers/alice/key-auth", json!({}))
        .await;
    let secret = text(&key, "/key").to_owned();
    assert_eq!(secret.len(), 32);
    let path = format!("consumers/alice/key-auth/{secret}");
    let found = lab.core(Method::GET, &path, Value::Null).await;
    assert_eq!(found.body["id"], key.body["id"]);
    assert_eq!(count("key-auths").await, 1);
    // A key of 32 hexadecimal digits is a key, although it could be read as an id.
    let path = "consumers/alice/key-auth/0123456789abcdef0123456789abcdef";
    let hex = lab.core(Method::PUT, path, json!({})).await;
    let found = lab.core(Method::GET, path, Value::Null).await;
    assert_eq!((found.status, &found.body), (200, &hex.body));
    assert_eq!(count("key-auths").await, 2);
    assert_eq!(
        lab.core(Method::POST, "key-auths", json!({})).await.status,
        405
    );

    lab.core(Method::PUT, "upstreams/u", json!({})).await;
    let target = lab
        .core(Method::PUT, "upstreams/u/targets/10.0.0.1", json!({}))
        .await;
    assert_eq!(
        (target.status, text(&target, "/target")),
        (200, "10.0.0.1:8000"),
        "{target:?}"
    );
    let body = json!({"weight": 7, "target": "10.0.0.1"});
    let same = lab
        .core(Method::PUT, "upstreams/u/targets/10.0.0.1:8000", body)
        .await;
    assert_eq!(
        (&same.body["id"], &same.body["weight"]),
        (&target.body["id"], &json!(7))
    );
    assert_eq!(count("targets").await, 1);

    let held = lab.core(Method::DELETE, "services/s", Value::Null).await;
    assert_eq!(
        (held.status, text(&held, "/details/0/type")),
        (400, "ERROR_TYPE_REFERENCE")
    );
    assert_eq!(
        lab.core(Method::DELETE, "services/s/routes/r", Value::Null)
            .await
            .status,
        204
    );
    assert_eq!(count("plugins").await, 0, "a plugin goes with its route");
    assert_eq!(
        lab.core(Method::DELETE, "services/s", Value::Null)
            .await
            .status,
        204
    );
    lab.stop().await;
}

#[tokio::test]
async fn lists_page_and_filter() {
    let lab = Lab::start().await;
    for number in 0..5 {
        let tags = if number % 2 == 0 {
            json!(["even", "all"])
        } else {
            json!(["all"])
        };
        let body = json!({"username": format!("c{number}"), "custom_id": number.to_string(), "tags": tags});
        assert_eq!(lab.core(Method::POST, "consumers", body).await.status, 201);
    }
    let mut path = "consumers?size=2&tags=all".to_owned();
    let mut names = Vec::new();
    loop {
        let page = lab.core(Method::GET, &path, Value::Null).await;
        let data = page.body["data"].as_array().unwrap();
        names.extend(
            data.iter()
                .map(|c| c["username"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page.body["next"].as_str() else {
            assert!(page.body.get("offset").is_none());
            break;
        };
        assert!(next.contains(text(&page, "/offset")));
        path = next.split_once("/core-entities/").unwrap().1.to_owned();
    }
    assert_eq!(names, ["c0", "c1", "c2", "c3", "c4"]);
    let count = async |query: &str| {
        let answer = lab
            .core(Method::GET, &format!("consumers?{query}"), Value::Null)
            .await;
        match answer.status {
            200 => Ok(answer.body["data"].as_array().unwrap().len()),
            400 => Err(answer.body["code"].as_u64().unwrap()),
            _ => panic!("{answer:?}"),
        }
    };
    assert_eq!(count("tags=even").await, Ok(3));
    assert_eq!(count("tags=even%2Call").await, Ok(3));
    assert_eq!(count("tags=even/none").await, Ok(3));
    assert_eq!(count("custom_id=3").await, Ok(1));
    assert_eq!(count("custom_id=30").await, Ok(0));
    for bad in [
        "size=0",
        "size=1001",
        "size=x",
        "offset=x",
        "tags=a,b/c",
        "filter[name][eq]=x",
    ] {
        assert_eq!(count(bad).await, Err(9), "{bad}");
    }
    lab.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let lab = Lab::start().await;
    let put = async |path: &str, body: &str| {
        let path = format!("/v2/control-planes/{}/core-entities/{path}", lab.cp());
        let token = lab.first.token.as_str();
        lab.request(Method::PUT, &path, Some(token), body.to_owned())
            .await
    };
    let check = async |path: &str, body: &str, kind: &str, field: Option<&str>, part: &str| {
        let answer = put(path, body).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (400, &json!(3)),
            "{answer:?}"
        );
        let details = answer.body["details"].as_array().unwrap();
        let found = details.iter().any(|detail| {
            detail["type"] == kind && detail.get("field").and_then(Value::as_str) == field
        });
        assert!(found, "{answer:?}");
        assert!(text(&answer, "/message").contains(part), "{answer:?}");
    };
    let field = "ERROR_TYPE_FIELD";
    check(
        "services/s",
        "{}",
        field,
        Some("host"),
        "validation error: host",
    )
    .await;
    check(
        "services/s",
        r#"{"host":"h","port":70000}"#,
        field,
        Some("port"),
        "port",
    )
    .await;
    check(
        "services/s",
        r#"{"host":"h","hots":1}"#,
        field,
        Some("hots"),
        "unknown field",
    )
    .await;
    check(
        "services/s",
        r#"{"host":"h","tags":["a",5]}"#,
        field,
        Some("tags[1]"),
        "tags[1]",
    )
    .await;
    check(
        "routes/r",
        "{}",
        "ERROR_TYPE_ENTITY",
        None,
        "must set one of",
    )
    .await;
    let plugin = format!("plugins/{NOWHERE}");
    check(&plugin, r#"{"name":"nope"}"#, field, Some("name"), "nope").await;
    let config = r#"{"name":"rate-limiting","config":{"minute":"x"}}"#;
    check(
        &plugin,
        config,
        field,
        Some("config.minute"),
        "config.minute",
    )
    .await;
    let dangling = format!(r#"{{"paths":["/"],"service":{{"id":"{NOWHERE}"}}}}"#);
    let reference = "ERROR_TYPE_REFERENCE";
    check(
        "routes/r",
        &dangling,
        reference,
        Some("service.id"),
        "data constraint error",
    )
    .await;
    assert_eq!(put("services/taken", r#"{"host":"h"}"#).await.status, 200);
    let clash = r#"{"host":"h","name":"taken"}"#;
    check(
        &format!("services/{NOWHERE}"),
        clash,
        reference,
        Some("name"),
        "unique",
    )
    .await;

    for (body, part) in [
        ("{", "not JSON"),
        ("[]", "an array"),
        ("", "not JSON"),
        ("x=1", "not JSON"),
    ] {
        let answer = put("services/s", body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(text(&answer, "/message").contains(part), "{answer:?}");
    }
    let answer = put("services/s", &" ".repeat(10 * 1024 * 1024 + 1)).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(
        text(&answer, "/message").contains("larger than"),
        "{answer:?}"
    );
    let answer = put("services/s/nonsense", "{}").await;
    assert_eq!(answer.status, 404);
    lab.stop().await;
}

#[tokio::test]
async fn vaults_are_known_by_their_prefix() {
    let lab = Lab::start().await;
    let vault = json!({"name": "env", "description": "of the app", "config": {"prefix": "APP_"}});
    let put = lab.core(Method::PUT, "vaults/my-app", vault).await;
    assert_eq!(put.status, 200, "{put:?}");
    let stored = &put.body;
    assert_eq!(
        (&stored["prefix"], &stored["config"]),
        (
            &json!("my-app"),
            &json!({"prefix": "APP_", "base64_decode": null})
        )
    );
    let by_prefix = lab.core(Method::GET, "vaults/my-app", Value::Null).await;
    assert_eq!(by_prefix.body, *stored);
    let list = lab.core(Method::GET, "vaults?size=1000", Value::Null).await;
    assert_eq!(list.body["data"], json!([stored]));
    let schema = lab
        .core(Method::GET, "schemas/vaults/env", Value::Null)
        .await;
    let field = &schema.body["fields"][0]["config"]["fields"][0];
    assert_eq!(field["prefix"]["type"], "string", "{schema:?}");
    let none = lab
        .core(Method::GET, "schemas/vaults/hcv", Value::Null)
        .await;
    assert_eq!(none.status, 404);
    assert!(text(&none, "/message").contains("No vault named 'hcv'"));
    let json = lab
        .core(Method::GET, "v1/schemas/json/vault", Value::Null)
        .await;
    assert!(json.body["properties"]["prefix"].is_object(), "{json:?}");
    for (body, said) in [
        (
            json!({"prefix": "hers", "name": "hcv"}),
            "vault 'hcv' is not part of this build",
        ),
        (json!({"prefix": "my-app", "name": "env"}), "prefix"),
        (
            json!({"prefix": "Env", "name": "env"}),
            "prefix: invalid value: Env",
        ),
        (
            json!({"prefix": "hers", "name": "file", "config": {"prefix": "/etc"}}),
            "config.prefix: invalid value: /etc",
        ),
        (
            json!({"prefix": "hers", "name": "env", "config": {"token": "x"}}),
            "config.token: unknown field",
        ),
    ] {
        let refused = lab.core(Method::POST, "vaults", body).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.to_string().contains(said), "{refused:?}");
    }
    // a reference in a field that takes none would be taken for the secret itself
    let config = json!({"http_endpoint": "http://a.example", "content_type": "{vault://env/x}"});
    let refused = lab
        .core(
            Method::POST,
            "plugins",
            json!({"name": "http-log", "config": config}),
        )
        .await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let gone = lab.core(Method::DELETE, "vaults/my-app", Value::Null).await;
    assert_eq!(gone.status, 204);
    lab.stop().await;
}

#[tokio::test]
async fn kinds_of_other_builds_are_refused_by_name() {
    let lab = Lab::start().await;
    for absent in ["partials", "oauth2", "licenses"] {
        assert_eq!(
            lab.core(Method::GET, absent, Value::Null).await.status,
            404,
            "{absent}"
        );
    }
    let uuid = NOWHERE;
    for path in ["partials", "consumers/c/oauth2"] {
        for (method, path) in [
            (Method::POST, path.to_owned()),
            (Method::PUT, format!("{path}/{uuid}")),
        ] {
            let answer = lab.core(method, &path, json!({})).await;
            assert_eq!(answer.status, 400, "{path}: {answer:?}");
            let message = text(&answer, "/message");
            assert!(
                message.contains("not supported by this build"),
                "{path}: {message}"
            );
        }
    }
    lab.stop().await;
}

#[tokio::test]
async fn certificates_go_with_their_names_and_stay_while_they_are_used() {
    let lab = Lab::start().await;
    let pair = sallyport_runtime::certs::self_signed_localhost(30).unwrap();
    let other = sallyport_runtime::certs::self_signed_localhost(30).unwrap();
    let body = json!({"cert": pair.cert, "key": other.key});
    let answer = lab.core(Method::POST, "certificates", body).await;
    assert_eq!(answer.status, 400);
    let message = text(&answer, "/message");
    assert!(
        message.contains("key: the private key does not belong"),
        "{message}"
    );
    let body = json!({"cert": pair.cert, "key": pair.key});
    let answer = lab.core(Method::POST, "certificates", body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = text(&answer, "/id").to_owned();
    let below = format!("certificates/{id}/snis");
    let answer = lab
        .core(Method::POST, &below, json!({"name": "a.example"}))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let body = json!({"name": "b.example", "certificate": {"id": id}});
    let answer = lab.core(Method::POST, "snis", body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let answer = lab
        .core(Method::POST, &below, json!({"name": "a.example"}))
        .await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let listed = lab.core(Method::GET, &below, Value::Null).await;
    assert_eq!(listed.body["data"].as_array().map(Vec::len), Some(2));

    let service = json!({"host": "a", "protocol": "https", "client_certificate": {"id": id}});
    let answer = lab.core(Method::PUT, "services/s", service).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let one = format!("certificates/{id}");
    let answer = lab.core(Method::DELETE, &one, Value::Null).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    lab.core(Method::DELETE, "services/s", Value::Null).await;
    let answer = lab.core(Method::DELETE, &one, Value::Null).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let listed = lab.core(Method::GET, "snis", Value::Null).await;
    assert_eq!(listed.body["data"], json!([]));

    let trusts = |id: &str| json!({"host": "a", "protocol": "https", "ca_certificates": [id]});
    let answer = lab.core(Method::PUT, "services/s", trusts(NOWHERE)).await;
    let message = text(&answer, "/message");
    assert!(
        message.contains("ca_certificates[0]: there is no CA"),
        "{message}"
    );
    let ca = sallyport_runtime::certs::LocalCa::create("test", 30).unwrap();
    let answer = lab
        .core(
            Method::POST,
            "ca_certificates",
            json!({"cert": ca.pem().cert}),
        )
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(text(&answer, "/cert_digest").len(), 64);
    let answer = lab
        .core(Method::PUT, "services/s", trusts(text(&answer, "/id")))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    lab.stop().await;
}

#[tokio::test]
async fn schemas_are_served_and_validate() {
    let lab = Lab::start().await;
    let root = lab.core(Method::GET, "", Value::Null).await;
    assert_eq!((root.status, text(&root, "/version")), (200, "3.10.0"));
    assert!(root.body["plugins"]["available_on_server"]["key-auth"].is_object());
    for name in [
        "service", "route", "upstream", "target", "consumer", "plugin", "key-auth",
    ] {
        let answer = lab
            .core(Method::GET, &format!("v1/schemas/json/{name}"), Value::Null)
            .await;
        assert!(answer.body["properties"].is_object(), "{name}: {answer:?}");
    }
    for name in [
        "services",
        "routes",
        "keyauth_credentials",
        "plugins/key-auth",
        "plugins/rate-limiting",
    ] {
        let answer = lab
            .core(Method::GET, &format!("schemas/{name}"), Value::Null)
            .await;
        assert!(answer.body["fields"].is_array(), "{name}: {answer:?}");
    }
    for (path, message) in [
        ("schemas/plugins/nope", "No plugin named 'nope'"),
        ("schemas/nope", "No entity named 'nope'"),
        ("v1/schemas/json/nope", "No entity named 'nope'"),
    ] {
        let answer = lab.core(Method::GET, path, Value::Null).await;
        assert_eq!((answer.status, text(&answer, "/message")), (404, message));
    }
    let good = json!({"host": "h"});
    let answer = lab
        .core(Method::POST, "schemas/services/validate", good)
        .await;
    assert_eq!(
        (answer.status, text(&answer, "/message")),
        (200, "schema validation successful")
    );
    let answer = lab
        .core(
            Method::POST,
            "schemas/plugins/validate",
            json!({"name": "nope"}),
        )
        .await;
    assert_eq!(answer.status, 400);
    let listed = lab.core(Method::GET, "services", Value::Null).await;
    assert_eq!(listed.body["data"], json!([]), "validating stores nothing");
    lab.stop().await;
}

#[tokio::test]
async fn a_control_plane_of_ingress_controllers_is_not_written_here() {
    let lab = Lab::start().await;
    let body = json!({"name": "kic", "cluster_type": "CLUSTER_TYPE_K8S_INGRESS_CONTROLLER"});
    let made = lab.api(Method::POST, "/v2/control-planes", body).await;
    let path = format!(
        "/v2/control-planes/{}/core-entities/services",
        text(&made, "/id")
    );
    let refused = lab.api(Method::POST, &path, json!({"host": "h"})).await;
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!(7)));
    assert_eq!(lab.api(Method::GET, &path, Value::Null).await.status, 200);
    lab.stop().await;
}

#[tokio::test]
async fn certificates_are_checked_before_they_are_pinned() {
    let lab = Lab::start().await;
    let path = format!("/v2/control-planes/{}/dp-client-certificates", lab.cp());
    let pair =
        sallyport_runtime::certs::data_plane_pair("gw", sallyport_runtime::certs::Curve::P256, 30);
    let pem = pair.unwrap().cert;
    let made = lab
        .api(Method::POST, &path, json!({"cert": pem, "title": "gw"}))
        .await;
    assert_eq!((made.status, text(&made, "/item/title")), (201, "gw"));
    assert!(made.body["item"]["created_at"].is_u64());
    let again = lab.api(Method::POST, &path, json!({"cert": pem})).await;
    assert_eq!(again.status, 409);
    let twice = format!("{pem}{pem}");
    for (body, part) in [
        (json!({"cert": "nonsense"}), "cert"),
        (json!({"cert": twice}), "exactly one"),
        (json!({}), "cert"),
        (json!({"cert": pem, "titel": "x"}), "titel"),
    ] {
        let answer = lab.api(Method::POST, &path, body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(text(&answer, "/message").contains(part), "{answer:?}");
    }
    let listed = lab.api(Method::GET, &path, Value::Null).await;
    assert_eq!(listed.body["items"], json!([made.body["item"]]));
    assert_eq!(listed.body["page"]["total_count"], 1);
    let one = format!("{path}/{}", text(&made, "/item/id"));
    assert_eq!(
        lab.api(Method::GET, &one, Value::Null).await.body,
        made.body
    );
    assert_eq!(lab.api(Method::DELETE, &one, Value::Null).await.status, 204);
    assert_eq!(lab.api(Method::GET, &one, Value::Null).await.status, 404);
    for nonsense in [
        "/v2/control-planes/x/nodes",
        "/v2/control-planes/x/dp-client-certificates",
    ] {
        let answer = lab.api(Method::GET, nonsense, Value::Null).await;
        assert_eq!(
            (answer.status, answer.body),
            (404, json!({"message": "Not Found"}))
        );
    }
    lab.stop().await;
}
