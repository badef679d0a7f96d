//! Each route with each role, over HTTP: allowed or 403, as the table says.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use sallyport_runtime::Tasks;
use sallyport_runtime::certs::LocalCa;
use sallyport_runtime::tls::Identity;
use sallyport_store::{Actor, Holder, NewRole, NewToken, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::roles::{Needs, ROLES, TEAMS, covers};
use super::{Prefix, digest, new_token};
use crate::app::{App, Shared, router, routes};
use crate::audit_log::{self, AuditLogSettings};
use crate::config_sync::Links;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::telemetry::{Telemetry, TelemetrySettings};

/// Somebody who asks, and what the table says they may.
#[derive(Clone)]
struct Somebody {
    name: String,
    token: String,
    may: Arc<dyn Fn(Needs) -> bool + Send + Sync>,
}

async fn somebody(
    store: &Store,
    name: String,
    give: impl AsyncFnOnce(Holder),
    may: impl Fn(Needs) -> bool + Send + Sync + 'static,
) -> Somebody {
    let actor = Actor("test".to_owned());
    let email = format!("{}@example.com", Uuid::new_v4());
    let user = store
        .create_user(&actor, email, name.clone())
        .await
        .unwrap();
    give(Holder::User(user.id)).await;
    let token = new_token(Prefix::Person).unwrap();
    let new = NewToken {
        name: "walk".to_owned(),
        digest: digest(&token),
        owner: user.id,
        expires_at_ms: None,
    };
    store.create_token(&actor, new).await.unwrap();
    let may = Arc::new(may);
    Somebody { name, token, may }
}

/// One for each role, one for each predefined team, and one who has nothing.
async fn everybody(store: &Store) -> Vec<Somebody> {
    let actor = Actor("test".to_owned());
    let mut all = Vec::new();
    for role in &ROLES {
        let name = format!("{} {}", role.entity_type, role.name);
        let new = NewRole {
            role: role.name.to_owned(),
            entity_type: role.entity_type.to_owned(),
            entity: "*".to_owned(),
            region: "*".to_owned(),
        };
        let give = async |holder| {
            store.assign_role(&actor, holder, new).await.unwrap();
        };
        all.push(somebody(store, name, give, |needs| covers(role, needs)).await);
    }
    let teams = store.teams().await.unwrap();
    for predefined in &TEAMS {
        let team = teams
            .iter()
            .find(|team| team.name == predefined.name)
            .unwrap();
        let give = async |holder| store.join_team(&actor, team.id, holder).await.unwrap();
        let name = predefined.name.to_owned();
        all.push(somebody(store, name, give, |needs| (predefined.allows)(needs)).await);
    }
    let nothing = somebody(store, "nothing".to_owned(), async |_| (), |_| false);
    all.push(nothing.await);
    all
}

/// A control plane's API without a listener.
async fn api(store: &Store, directory: &std::path::Path) -> (Router, Tasks) {
    let ca = LocalCa::create("test authority", 30).unwrap();
    let server = ca.issue_server(&["localhost"], 30).unwrap();
    let identity = Identity::from_pem(&server.cert, &server.key).unwrap();
    let opened = audit_log::open(AuditLogSettings::quiet(directory), &identity).unwrap();
    let mut tasks = Tasks::new(CancellationToken::new());
    let audit = opened.start(&mut tasks, "sallyport.test", None).await;
    let telemetry = Telemetry::start(TelemetrySettings::quiet(directory), store, &mut tasks);
    let (links, _, _) = Links::new(store.clone());
    let app = App(Arc::new(Shared {
        store: store.clone(),
        plugins: sallyport_plugins::schemas(),
        publishers: links.publishers,
        issuer: None,
        audit,
        telemetry: telemetry.unwrap(),
        limits: Limits::new(0),
        metrics: Metrics::default(),
        base_domain: "sallyport.test".to_owned(),
        geo: "eu".to_owned(),
        node_id: Uuid::new_v4(),
    }));
    (router(app), tasks)
}

/// A path whose parameters name nothing, so that whatever is allowed changes nothing.
fn nowhere(path: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{table}" => "services".to_owned(),
        "{version}" => "0".to_owned(),
        part if part.starts_with('{') => Uuid::new_v4().to_string(),
        part => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_opens_what_the_table_says_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
    crate::bootstrap(&store, "test", None).await.unwrap();
    let (router, tasks) = api(&store, directory.path()).await;
    let everybody = everybody(&store).await;
    let mut walks = JoinSet::new();
    for who in everybody {
        let router = router.clone();
        walks.spawn(async move {
            let service = TowerToHyperService::new(router);
            let mut wrong = Vec::new();
            let mut asked = 0;
            for route in routes() {
                let needs = match route.needs {
                    Needs::Person(access) => Needs::Identity(access),
                    other => other,
                };
                let open = matches!(needs, Needs::Nothing | Needs::Token);
                let allowed = open || (who.may)(needs);
                let body = match route.method {
                    Method::GET | Method::DELETE => "",
                    _ => "{}",
                };
                let request = Request::builder()
                    .method(route.method.clone())
                    .uri(nowhere(&route.path))
                    .header("authorization", format!("Bearer {}", who.token))
                    .body(Body::from(body))
                    .unwrap();
                let status = service.call(request).await.unwrap().status().as_u16();
                asked += 1;
                if (status != 403) != allowed || status == 401 || status >= 500 {
                    let (method, path) = (&route.method, &route.path);
                    let who = &who.name;
                    wrong.push(format!(
                        "{who}: {method} {path}: {status}, allowed: {allowed}"
                    ));
                }
            }
            (asked, wrong)
        });
    }
    let (mut asked, mut wrong) = (0, Vec::new());
    while let Some(walked) = walks.join_next().await {
        let (more, found) = walked.unwrap();
        asked += more;
        wrong.extend(found);
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(asked > 2_000, "{asked} requests were sent");
    tasks.finish(std::time::Duration::from_secs(5)).await;
}
