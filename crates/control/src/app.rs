//! What every API handler shares, and the router over all features.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware;
use sallyport_model::schema::PluginSchemas;
use sallyport_store::Store;
use uuid::Uuid;

use crate::audit_log::Audit;
use crate::config_sync::Publishers;
use crate::telemetry::Telemetry;
use crate::{
    audit_log, control_planes, core_entities, deck, dp_certificates, identity, metrics, nodes,
    problem, telemetry, versions,
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

/// Every API of the control plane; each needs a token, except for published keys, and what happens
/// there is recorded.
pub(crate) fn router(app: App) -> Router {
    let recorder = app.audit.recorder.clone();
    Router::new()
        .merge(control_planes::routes())
        .merge(core_entities::routes())
        .merge(dp_certificates::routes())
        .merge(nodes::routes())
        .merge(versions::routes())
        .merge(identity::routes())
        .merge(deck::routes())
        .merge(audit_log::routes())
        .merge(telemetry::routes())
        .merge(metrics::routes())
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn_with_state(
            app.clone(),
            identity::require_token,
        ))
        .merge(audit_log::public_routes())
        .layer(middleware::from_fn_with_state(recorder, audit_log::record))
        .with_state(app)
}
