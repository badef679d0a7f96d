//! `GET /metrics`: what this process counts, for Prometheus. Like every API it wants a token, which
//! Prometheus sends as `authorization` or `bearer_token`.

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use sallyport_plugins::metrics::Exposition;

use crate::app::App;
use crate::telemetry::Telemetry;

pub(crate) fn routes() -> Router<App> {
    Router::new().route("/metrics", get(text))
}

async fn text(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    let mut out = Exposition::default();
    telemetry.metrics(&mut out);
    ([(CONTENT_TYPE, Exposition::CONTENT_TYPE)], out.into_text())
}
