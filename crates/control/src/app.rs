//! What every API handler shares, and the router over all features.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware;
use sallyport_model::schema::PluginSchemas;
use sallyport_runtime::certs::LocalCa;
use sallyport_store::Store;
use uuid::Uuid;

use crate::audit_log::Audit;
use crate::config_sync::Publishers;
use crate::identity::Needs;
use crate::limits::Limits;
use crate::metrics::{self, Metrics};
use crate::route::{Route, serve};
use crate::telemetry::Telemetry;
use crate::{
    audit_log, control_planes, core_entities, deck, dp_certificates, drafts, enrolment, identity,
    nodes, openapi, problem, snapshot, telemetry, versions,
};

/// The shared state of the API.
#[derive(Clone)]
pub(crate) struct App(pub(crate) Arc<Shared>);

/// See [`App`].
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) plugins: &'static dyn PluginSchemas,
    pub(crate) publishers: Publishers,
    pub(crate) audit: Audit,
    pub(crate) telemetry: Telemetry,
    /// The installation's own authority, if it has one.
    pub(crate) issuer: Option<Arc<LocalCa>>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    /// Domain under which host names of control planes live.
    pub(crate) base_domain: String,
    /// Geo of this installation.
    pub(crate) geo: String,
    /// Identity of this process in answers that name a node.
    pub(crate) node_id: Uuid,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl FromRef<App> for Store {
    fn from_ref(app: &App) -> Store {
        app.store.clone()
    }
}

/// Every path of the control plane.
pub(crate) fn routes() -> Vec<Route> {
    let mut all = control_planes::routes();
    all.extend(core_entities::routes());
    all.extend(dp_certificates::routes());
    all.extend(nodes::routes());
    all.extend(enrolment::routes());
    all.extend(snapshot::routes());
    all.extend(versions::routes());
    all.extend(drafts::routes());
    all.extend(identity::routes());
    all.extend(deck::routes());
    all.extend(audit_log::routes());
    all.extend(telemetry::routes());
    all.extend(openapi::routes());
    all.extend(metrics::routes());
    all
}

/// Every API of the control plane. Each path needs a token unless its row says otherwise, and what
/// happens there is recorded.
pub(crate) fn router(app: App) -> Router {
    let recorder = app.audit.recorder.clone();
    let (open, guarded): (Vec<Route>, Vec<Route>) = routes()
        .into_iter()
        .partition(|route| route.needs == Needs::Nothing);
    serve(guarded, &app)
        .merge(core_entities::router())
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn_with_state(
            app.clone(),
            identity::require_token,
        ))
        .merge(serve(open, &app))
        .layer(middleware::from_fn_with_state(recorder, audit_log::record))
        .layer(middleware::from_fn_with_state(app.clone(), metrics::count))
        .with_state(app)
}
