//! A control plane's configuration as a signed file, for gateways that start without it.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::Deserialize;

use crate::app::App;
use crate::arguments::Arguments;
use crate::config_sync::{exported, now_secs};
use crate::dp_certificates::{Legacy, id};
use crate::identity::{Access, Needs, Part};
use crate::route::Route;

const DAYS: u32 = 30;
const DAYS_MAX: u32 = 366;

pub(crate) fn routes() -> Vec<Route> {
    let needs = Needs::ControlPlane(Part::Configuration, Access::Read);
    let summary = "The configuration as a signed file";
    vec![
        Route::get("/v2/control-planes/{cp}/snapshot", needs, summary, export)
            .query(&["valid_days"]),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    valid_days: Option<u32>,
}

/// `GET …/snapshot`: the newest version, signed with the key that signs the audit log.
async fn export(
    State(app): State<App>,
    Path(cp): Path<String>,
    Arguments(wanted): Arguments<Wanted>,
) -> Result<Response, Legacy> {
    let cp = id(&cp)?;
    let days = wanted.valid_days.unwrap_or(DAYS);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(Legacy::bad(format!(
            "valid_days: must be between 1 and {DAYS_MAX}"
        )));
    }
    let plane = app.store.control_plane(cp).await?;
    let snapshot = app.store.snapshot(cp).await?;
    let now = now_secs();
    let expires_at = now + i64::from(days) * 24 * 3600;
    let made = tokio::task::spawn_blocking(move || {
        exported((cp, plane.prefix), snapshot, (now, expires_at))
    });
    let mut file = made
        .await
        .map_err(|_| Legacy::unable("the export was abandoned, try again"))?;
    let signature = app.audit.log.key().sign(&file);
    file.extend_from_slice(&signature);
    let name = format!("attachment; filename=\"{cp}.snapshot\"");
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, name),
    ];
    Ok((headers, file).into_response())
}
