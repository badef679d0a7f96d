//! Past versions of a control plane's entities: listed, compared, restored as a new version.
//!
//! Reading them is `core_entities` with `?as_of=`, or below `/versions/{version}/core-entities`,
//! where decK can dump and diff them.

use axum::body::{Body, HttpBody};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use sallyport_store::{Actor, ClusterType, Difference, Store, StoreError, Version};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::body;
use crate::identity::Access::{Read, Write};
use crate::identity::{Needs, Part, stamp};
use crate::problem::Problem;
use crate::route::Route;

const SIZE: usize = 100;
const SIZE_MAX: usize = 1000;

pub(crate) fn routes() -> Vec<Route> {
    let path = "/v2/control-planes/{cp}/versions";
    let needs = |access| Needs::ControlPlane(Part::Configuration, access);
    let one = format!("{path}/{{version}}");
    vec![
        Route::get(path, needs(Read), "List versions", list)
            .query(&["page[size]", "page[after]"])
            .gives(200, "VersionList"),
        Route::get(&*one, needs(Read), "Show a version", show).gives(200, "Version"),
        Route::get(
            format!("{one}/changes"),
            needs(Read),
            "Compare versions",
            changes,
        )
        .query(&["since"])
        .gives(200, "ChangeList"),
        Route::post(
            format!("{one}/restore"),
            needs(Write),
            "Make a version the newest",
            restore,
        )
        .takes("ExpectedVersion")
        .gives(200, "Restored"),
    ]
}

/// Why a text names no version.
#[derive(Debug)]
pub(crate) enum AsOfError {
    /// It is neither a number nor a time.
    Form(String),
    Store(StoreError),
}

impl From<AsOfError> for Problem {
    fn from(error: AsOfError) -> Problem {
        match error {
            AsOfError::Form(reason) => Problem::invalid("version", reason),
            AsOfError::Store(error) => error.into(),
        }
    }
}

/// The version that a number or a time (RFC 3339) names; it may not be there.
pub(crate) async fn named(store: &Store, cp: Uuid, text: &str) -> Result<u64, AsOfError> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let Ok(time) = text.parse::<Timestamp>() else {
        return Err(AsOfError::Form(format!(
            "{text:?} is neither the number of a version nor a time such as 2026-01-31T12:00:00Z"
        )));
    };
    let found = store.revision_at(cp, time.as_millisecond()).await;
    found.map_err(AsOfError::Store)
}

fn cp(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::not_found(&format!("control plane {text:?}")))
}

fn shown(version: &Version) -> Value {
    json!({
        "version": version.revision,
        "created_at": stamp(version.at_ms),
        "actor": version.actor,
        "changes": version.changes,
    })
}

async fn list(
    State(store): State<Store>,
    Path(id): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let (mut size, mut below) = (SIZE, u64::MAX);
    for (name, value) in &query {
        match name.as_str() {
            "page[size]" => {
                let read = value.parse().ok();
                let read = read.filter(|size| (1..=SIZE_MAX).contains(size));
                let reason = || Problem::invalid("page[size]", format!("1 to {SIZE_MAX}"));
                size = read.ok_or_else(reason)?;
            }
            "page[after]" => {
                let reason = |_| Problem::invalid("page[after]", "the number of a version");
                below = value.parse().map_err(reason)?;
            }
            _ => {}
        }
    }
    // One more than asked for tells whether there is another page.
    let mut found = store.versions(cp(&id)?, below, size + 1).await?;
    let more = found.len() > size;
    found.truncate(size);
    let next = found.last().filter(|_| more);
    let next = next.map(|version| version.revision.to_string());
    let data: Vec<Value> = found.iter().map(shown).collect();
    Ok(Json(json!({
        "data": data,
        "meta": {"page": {"size": size, "next": next}},
    })))
}

async fn show(
    State(store): State<Store>,
    Path((id, version)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let cp = cp(&id)?;
    let revision = named(&store, cp, &version).await?;
    let newest = store.revision(cp).await?;
    if revision > newest {
        return Err(StoreError::NoRevision { revision, newest }.into());
    }
    let found = store.versions(cp, revision.saturating_add(1), 1).await?;
    let found = found.first().filter(|found| found.revision == revision);
    let none = || json!({"version": revision, "created_at": null, "actor": null, "changes": 0});
    Ok(Json(found.map_or_else(none, shown)))
}

pub(crate) fn difference(difference: &Difference) -> Value {
    let operation = match (&difference.before, &difference.after) {
        (None, _) => "create",
        (_, None) => "delete",
        _ => "update",
    };
    let one = difference.after.as_ref().or(difference.before.as_ref());
    let name = one.map(|one| &one["name"]).filter(|name| !name.is_null());
    json!({
        "operation": operation,
        "kind": difference.kind.table(),
        "id": difference.id,
        "name": name,
        "before": difference.before,
        "after": difference.after,
    })
}

/// What leads to a version from the one before it, or from any other: `?since=`.
async fn changes(
    State(store): State<Store>,
    Path((id, version)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Value>, Problem> {
    let cp = cp(&id)?;
    let own = store.control_plane(cp).await?;
    if own.cluster_type == ClusterType::ControlPlaneGroup {
        let reason = "a group keeps no entities of its own; compare versions of its members";
        return Err(Problem::invalid("version", reason));
    }
    let to = named(&store, cp, &version).await?;
    let since = query.iter().find(|(name, _)| name == "since");
    let from = match since {
        Some((_, since)) => named(&store, cp, since).await?,
        None => to.saturating_sub(1),
    };
    let found = store.compare(cp, from, to).await?;
    let data: Vec<Value> = found.iter().map(difference).collect();
    Ok(Json(json!({"from": from, "to": to, "data": data})))
}

async fn restore(
    State(store): State<Store>,
    Extension(actor): Extension<Actor>,
    Path((id, version)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let cp = cp(&id)?;
    let expected = match body.is_end_stream() {
        true => None,
        false => expected(&body::object(&headers, body).await?)?,
    };
    let detail = match store.control_plane(cp).await?.cluster_type {
        ClusterType::K8sIngressController => {
            "entities of a control plane for ingress controllers are written by those"
        }
        ClusterType::ControlPlaneGroup => "a group has no entities of its own",
        _ => "",
    };
    if !detail.is_empty() {
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let revision = named(&store, cp, &version).await?;
    let restored = store.restore(cp, &actor, revision, expected).await?;
    Ok(Json(json!({
        "version": restored.revision,
        "restored": revision,
        "changes": restored.count,
    })))
}

/// The version that the caller believes to be the newest one.
pub(crate) fn expected(body: &Value) -> Result<Option<u64>, Problem> {
    let unknown = body.as_object().into_iter().flatten();
    if let Some((name, _)) = unknown
        .into_iter()
        .find(|(name, _)| *name != "expected_version")
    {
        return Err(Problem::invalid(name, "unknown field"));
    }
    match &body["expected_version"] {
        Value::Null => Ok(None),
        number => match number.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::invalid(
                "expected_version",
                "the number of a version",
            )),
        },
    }
}
