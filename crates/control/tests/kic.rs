//! The calls of a Kubernetes ingress controller, with a client certificate.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(dead_code, reason = "the support module serves several tests")]

mod support;

use http::Method;
use sallyport_runtime::certs::{Curve, data_plane_pair};
use sallyport_runtime::tls::Identity;
use serde_json::{Value, json};
use support::{BASE, GEO, Lab};

const NODE: &str = "11111111-1111-4111-8111-111111111111";

#[tokio::test]
async fn an_ingress_controller_syncs_tells_of_nodes_and_asks_for_licences() {
    let lab = Lab::start().await;
    let body = json!({"name": "k8s", "cluster_type": "CLUSTER_TYPE_K8S_INGRESS_CONTROLLER"});
    let made = lab.api(Method::POST, "/v2/control-planes", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let cp = made.body["id"].as_str().unwrap().to_owned();
    let pair = data_plane_pair("kic", Curve::P256, 30).unwrap();
    let pins = format!("/v2/control-planes/{cp}/dp-client-certificates");
    let pinned = lab
        .api(Method::POST, &pins, json!({"cert": pair.cert}))
        .await;
    assert_eq!(pinned.status, 201);
    let identity = Identity::from_pem(&pair.cert, &pair.key).unwrap();
    let stranger = data_plane_pair("other", Curve::P256, 30).unwrap();
    let stranger = Identity::from_pem(&stranger.cert, &stranger.key).unwrap();

    let base = format!("/kic/api/control-planes/{cp}");
    let host = format!("{GEO}.kic.api.{BASE}");
    let call = async |method, path: &str, body: Value| {
        let path = format!("{base}{path}");
        lab.request_with(&host, Some(&identity), method, &path, body)
            .await
    };
    let first = call(Method::GET, "/services?size=1", Value::Null).await;
    assert_eq!(
        (first.status, &first.body["data"]),
        (200, &json!([])),
        "{first:?}"
    );
    // the whole read set, kinds of other builds among it: any 404 ends its round
    for list in [
        "services",
        "routes",
        "plugins",
        "filter-chains",
        "certificates",
        "ca_certificates",
        "snis",
        "upstreams",
        "targets",
        "vaults",
        "partials",
        "keys",
        "key-sets",
        "consumer_groups",
        "consumers",
        "key-auths",
        "hmac-auths",
        "jwts",
        "basic-auths",
        "acls",
        "mtls-auths",
    ] {
        let answer = call(Method::GET, &format!("/{list}?size=1000"), Value::Null).await;
        assert_eq!(
            (answer.status, &answer.body["data"]),
            (200, &json!([])),
            "{list}"
        );
    }
    for schema in ["service", "route", "upstream", "target"] {
        let path = format!("/v1/schemas/json/{schema}");
        assert_eq!(
            call(Method::GET, &path, Value::Null).await.status,
            200,
            "{schema}"
        );
    }
    let written = call(Method::PUT, "/services/s", json!({"host": "h"})).await;
    assert_eq!(written.status, 200, "{written:?}");
    // others read what it wrote, and do not write
    let core = format!("/v2/control-planes/{cp}/core-entities/services/s");
    assert_eq!(lab.api(Method::GET, &core, Value::Null).await.status, 200);
    assert_eq!(
        lab.api(Method::PUT, &core, json!({"host": "x"}))
            .await
            .status,
        403
    );

    let node = json!({
        "id": NODE, "hostname": "kong/pod", "type": "ingress-controller", "version": "3.5.0",
        "last_ping": 1_700_000_000, "status": "INGRESS_CONTROLLER_STATE_OPERATIONAL",
    });
    let made = call(Method::POST, "/v1/kic-nodes", node.clone()).await;
    assert_eq!(
        (made.status, &made.body["item"]["id"]),
        (201, &json!(NODE)),
        "{made:?}"
    );
    assert!(made.body["item"]["created_at"].is_i64());
    let listed = call(Method::GET, "/v1/kic-nodes", Value::Null).await;
    assert_eq!(listed.body["page"]["total_count"], 1);
    assert_eq!(listed.body["items"][0]["hostname"], "kong/pod");
    let path = format!("/v1/kic-nodes/{NODE}");
    let changed =
        json!({"hostname": "kong/pod", "type": "ingress-controller", "last_ping": 1_700_000_060});
    let put = call(Method::PUT, &path, changed).await;
    assert_eq!(put.body["item"]["last_ping"], 1_700_000_060, "{put:?}");
    let bare = call(Method::GET, &path, Value::Null).await;
    assert_eq!(bare.body["id"], NODE, "not wrapped");
    let bad = call(Method::POST, "/v1/kic-nodes", json!({"hostname": "x"})).await;
    assert_eq!(bad.status, 400);
    for _ in 0..2 {
        assert_eq!(call(Method::DELETE, &path, Value::Null).await.status, 204);
    }
    let licences = call(Method::GET, "/v1/licenses", Value::Null).await;
    assert_eq!(licences.status, 404, "none, which is no error");

    // another's certificate, another's control plane, and none that is there: one answer
    let services = format!("{base}/services");
    let refused = lab
        .request_with(&host, Some(&stranger), Method::GET, &services, Value::Null)
        .await;
    assert_eq!(refused.status, 401);
    for other in [lab.cp(), "99999999-9999-4999-8999-999999999999".to_owned()] {
        let path = format!("/kic/api/control-planes/{other}/services");
        let answer = lab
            .request_with(&host, Some(&identity), Method::GET, &path, Value::Null)
            .await;
        assert_eq!((answer.status, &answer.body), (401, &refused.body));
    }
    lab.stop().await;
}
