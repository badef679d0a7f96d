//! `/v2/telemetry` and `/v2/control-planes/{id}/telemetry`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query as Arguments, State};
use http::StatusCode;
use sallyport_model::Kind;
use sallyport_store::Store;
use sallyport_wire::telemetry::{Sketch, StatusClass};
use serde_json::{Map, Value as Json_, json};
use uuid::Uuid;

use super::database::{self, Grain};
use super::query::{By, Found, Group, Query, Sums, Value, grain, run};
use super::writer::now;
use super::{Failure, Telemetry};
use crate::app::App;
use crate::identity::{Access, Needs, Part, stamp};
use crate::problem::Problem;
use crate::route::Route;

/// How far back a query looks that does not say.
const RANGE_SECS: i64 = 3_600;
const RANGE_SECS_MAX: i64 = 3_660 * 86_400;
const SIZE: usize = 100;
const SIZE_MAX: usize = 1_000;
/// Steps of time in one answer.
const STEPS_MAX: i64 = 10_000;

/// Query arguments.
const ARGUMENTS: &[&str] = &[
    "from",
    "to",
    "interval",
    "group_by",
    "size",
    "filter[service]",
    "filter[route]",
    "filter[consumer]",
    "filter[status_class]",
    "filter[upstream]",
    "filter[node]",
];

pub(crate) fn routes() -> Vec<Route> {
    let needs = Needs::ControlPlane(Part::Telemetry, Access::Read);
    vec![
        Route::get(
            "/v2/telemetry",
            needs,
            "Requests, errors and latencies over all control planes",
            everywhere,
        )
        .query(ARGUMENTS)
        .gives(200, "Telemetry"),
        Route::get(
            "/v2/control-planes/{cp}/telemetry",
            needs,
            "Requests, errors and latencies of a control plane",
            of_control_plane,
        )
        .query(ARGUMENTS)
        .gives(200, "Telemetry"),
    ]
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        match failure {
            Failure::TooMuch(_) => Problem::new(StatusCode::BAD_REQUEST, failure.to_string()),
            Failure::Busy | Failure::Closed => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, failure.to_string())
            }
            Failure::Engine(_) => {
                tracing::error!(%failure, "a query of telemetry failed");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "")
            }
        }
    }
}

async fn everywhere(
    State(app): State<App>,
    Arguments(query): Arguments<Vec<(String, String)>>,
) -> Result<Json<Json_>, Problem> {
    answer(&app, &query, None).await
}

async fn of_control_plane(
    State(app): State<App>,
    Path(text): Path<String>,
    Arguments(query): Arguments<Vec<(String, String)>>,
) -> Result<Json<Json_>, Problem> {
    let unknown = |_| Problem::not_found(&format!("control plane {text:?}"));
    let id = Uuid::try_parse(&text).map_err(unknown)?;
    let found = app.store.control_plane(id).await?;
    answer(&app, &query, Some(found.id)).await
}

async fn answer(
    app: &App,
    arguments: &[(String, String)],
    only: Option<Uuid>,
) -> Result<Json<Json_>, Problem> {
    let asked =
        Asked::parse(arguments, now()).map_err(|(name, reason)| Problem::invalid(&name, reason))?;
    let telemetry: &Telemetry = &app.telemetry;
    let found = telemetry.read(move |conn| {
        let oldest = database::first(conn, Grain::Minute)?.unwrap_or(i64::MAX / 60) * 60;
        // what began before there were minutes at all is in them as well as in hours
        let first_hour = database::first(conn, Grain::Hour)?.unwrap_or(i64::MAX / 3_600) * 3_600;
        let oldest = if oldest - first_hour < 3_600 {
            0
        } else {
            oldest
        };
        let query = asked.query(oldest, only);
        run(conn, &query).map(|found| (query, found))
    });
    let (query, found) = found.await?;
    let names = Names::of(&app.store, &query, &found).await?;
    let data: Vec<Json_> = found
        .groups
        .iter()
        .map(|(group, sums)| shown(&query, &names, group, sums))
        .collect();
    let mut all = Map::new();
    show_sums(&mut all, &found.all);
    Ok(Json(json!({
        "data": data,
        "total": all,
        "meta": {
            "from": stamp(query.from * 1_000),
            "to": stamp(query.to * 1_000),
            "granularity_seconds": query.grain.seconds(),
            "interval_seconds": query.interval,
            "left_out": found.left_out,
        },
    })))
}

/// A query as it was asked, before it is known which grain serves it.
#[derive(Debug)]
struct Asked {
    from: i64,
    to: i64,
    interval: Option<i64>,
    by: Vec<By>,
    only: Vec<(By, Vec<Value>)>,
    size: usize,
}

type Bad = (String, String);

impl Asked {
    fn parse(arguments: &[(String, String)], now: i64) -> Result<Asked, Bad> {
        let (mut from, mut to) = (None, None);
        let mut asked = Asked {
            from: 0,
            to: 0,
            interval: None,
            by: Vec::new(),
            only: Vec::new(),
            size: SIZE,
        };
        for (name, text) in arguments {
            let bad = |reason: String| (name.clone(), reason);
            match name.as_str() {
                "from" => from = Some(instant(text).map_err(bad)?),
                "to" => to = Some(instant(text).map_err(bad)?),
                "interval" => asked.interval = interval(text).map_err(bad)?,
                "group_by" => {
                    for word in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
                        let by = dimension(word).map_err(bad)?;
                        if !asked.by.contains(&by) {
                            asked.by.push(by);
                        }
                    }
                }
                "size" => {
                    let size = text.parse().ok().filter(|it| (1..=SIZE_MAX).contains(it));
                    asked.size =
                        size.ok_or_else(|| bad(format!("must be from 1 to {SIZE_MAX}")))?;
                }
                _ => {
                    let inner = name
                        .strip_prefix("filter[")
                        .and_then(|it| it.strip_suffix(']'));
                    let Some(inner) = inner else {
                        let known = "from, to, interval, group_by, size or filter[<dimension>]";
                        return Err(bad(format!("is not known; possible: {known}")));
                    };
                    let by = dimension(inner).map_err(bad)?;
                    let values: Result<Vec<Value>, String> =
                        text.split(',').map(|it| value(by, it.trim())).collect();
                    asked.only.push((by, values.map_err(bad)?));
                }
            }
        }
        asked.to = to.unwrap_or(now + 60);
        asked.from = from.unwrap_or(asked.to - RANGE_SECS);
        let range = asked.to - asked.from;
        if !(1..=RANGE_SECS_MAX).contains(&range) {
            return Err((
                "from".to_owned(),
                "must be before to, at most ten years".to_owned(),
            ));
        }
        if asked
            .interval
            .is_some_and(|interval| range / interval > STEPS_MAX)
        {
            let reason = format!("would make more than {STEPS_MAX} steps");
            return Err(("interval".to_owned(), reason));
        }
        Ok(asked)
    }

    fn query(self, oldest_minute: i64, control_plane: Option<Uuid>) -> Query {
        let grain = grain(oldest_minute, self.from, self.to, self.interval);
        let seconds = grain.seconds();
        let mut only = self.only;
        if let Some(id) = control_plane {
            only.push((By::ControlPlane, vec![Value::Id(id)]));
        }
        Query {
            grain,
            from: self.from.div_euclid(seconds) * seconds,
            to: (self.to + seconds - 1).div_euclid(seconds) * seconds,
            interval: self.interval.map(|it| it.max(seconds)),
            by: self.by,
            only,
            groups_max: self.size,
        }
    }
}

fn instant(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<i64>() {
        let ok = (0..=253_402_300_799).contains(&seconds);
        return ok
            .then_some(seconds)
            .ok_or_else(|| "is out of range".to_owned());
    }
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    let parsed = parsed
        .map_err(|_| "must be a time such as 2026-01-31T12:00:00Z, or Unix seconds".to_owned())?;
    Ok(parsed.as_second())
}

fn interval(text: &str) -> Result<Option<i64>, String> {
    Ok(match text {
        "none" => None,
        "minute" => Some(60),
        "hour" => Some(3_600),
        "day" => Some(86_400),
        text => {
            let seconds = text.parse::<i64>().ok();
            let fits = |it: &i64| (60..=366 * 86_400).contains(it) && it % 60 == 0;
            let told = "must be none, minute, hour, day, or seconds that are whole minutes";
            Some(seconds.filter(fits).ok_or(told)?)
        }
    })
}

fn dimension(word: &str) -> Result<By, String> {
    By::parse(word).ok_or_else(|| {
        let known = By::ALL.map(By::as_str).join(", ");
        format!("{word:?} is not one of {known}")
    })
}

fn value(by: By, text: &str) -> Result<Value, String> {
    match (by, text) {
        (By::StatusClass, text) => StatusClass::parse(text)
            .map(Value::Class)
            .ok_or_else(|| format!("{text:?} is not one of 1xx, 2xx, 3xx, 4xx, 5xx")),
        (_, "none") => Ok(Value::None),
        (By::Service | By::Route | By::Consumer | By::Upstream, "overflow") => Ok(Value::Overflow),
        (By::Upstream, text) => Ok(Value::Text(text.to_owned())),
        (_, text) => Uuid::try_parse(text)
            .map(Value::Id)
            .map_err(|_| format!("{text:?} is not an id; possible: ids, none and overflow")),
    }
}

/// What entities are called.
#[derive(Default)]
struct Names(HashMap<Uuid, String>);

impl Names {
    async fn of(store: &Store, query: &Query, found: &Found) -> Result<Names, Problem> {
        let mut names = Names::default();
        let kinds = [By::Service, By::Route, By::Consumer];
        if query
            .by
            .iter()
            .all(|by| !kinds.contains(by) && *by != By::ControlPlane)
        {
            return Ok(names);
        }
        let control_planes = store.control_planes().await?;
        for control_plane in &control_planes {
            names.0.insert(control_plane.id, control_plane.name.clone());
        }
        let only = query.only.iter().filter(|(by, _)| *by == By::ControlPlane);
        let only: Vec<&Value> = only.flat_map(|(_, values)| values).collect();
        for (group, _) in &found.groups {
            let of = &group.of;
            for (kind, id) in [
                (Kind::Service, of.service),
                (Kind::Route, of.route),
                (Kind::Consumer, of.consumer),
            ] {
                let Some(id) = id.filter(|id| !names.0.contains_key(id)) else {
                    continue;
                };
                let owners = control_planes.iter().filter(|it| {
                    let own = group.control_plane == it.id || group.control_plane.is_nil();
                    own && (only.is_empty() || only.contains(&&Value::Id(it.id)))
                });
                for owner in owners {
                    if let Ok(Some(entity)) = store.get(owner.id, kind, id).await {
                        let name = super::export::name_of(&entity).unwrap_or_default();
                        names.0.insert(id, name.to_owned());
                        break;
                    }
                }
            }
        }
        Ok(names)
    }

    /// `{"id", "name"}`, where the name is null if there is none.
    fn shown(&self, id: Option<Uuid>, overflow: bool) -> Json_ {
        match (overflow, id) {
            (true, _) => json!({"id": "overflow", "name": null}),
            (false, None) => Json_::Null,
            (false, Some(id)) => {
                let name = self.0.get(&id).filter(|name| !name.is_empty());
                json!({"id": id, "name": name})
            }
        }
    }
}

fn shown(query: &Query, names: &Names, group: &Group, sums: &Sums) -> Json_ {
    let mut out = Map::new();
    if query.interval.is_some() {
        out.insert("at".to_owned(), json!(stamp(group.at * 1_000)));
    }
    let of = &group.of;
    for by in &query.by {
        let value = match by {
            By::ControlPlane => names.shown(Some(group.control_plane), false),
            By::Service => names.shown(of.service, of.overflow),
            By::Route => names.shown(of.route, of.overflow),
            By::Consumer => names.shown(of.consumer, of.overflow),
            By::StatusClass => json!(of.class.as_str()),
            By::Upstream if of.overflow => json!("overflow"),
            By::Upstream => json!(of.upstream.as_deref()),
            By::Node => json!(group.node),
        };
        out.insert(by.as_str().to_owned(), value);
    }
    show_sums(&mut out, sums);
    Json_::Object(out)
}

fn show_sums(out: &mut Map<String, Json_>, sums: &Sums) {
    let totals = &sums.totals;
    let more = [
        ("requests", json!(totals.requests())),
        ("client_errors", json!(sums.client_errors)),
        ("server_errors", json!(sums.server_errors)),
        ("request_bytes", json!(totals.request_bytes)),
        ("response_bytes", json!(totals.response_bytes)),
        ("latency_ms", latencies(&totals.latency)),
        ("upstream_latency_ms", latencies(&totals.upstream_latency)),
    ];
    out.extend(more.map(|(name, value)| (name.to_owned(), value)));
}

/// Null without any.
fn latencies(sketch: &Sketch) -> Json_ {
    let rounded = |ms: f64| (ms * 1_000.0).round() / 1_000.0;
    let at = |q: f64| sketch.quantile(q).map(|seconds| rounded(seconds * 1e3));
    if sketch.is_empty() {
        return Json_::Null;
    }
    json!({
        "mean": rounded(sketch.sum_ns() as f64 / 1e6 / sketch.count() as f64),
        "p50": at(0.5),
        "p95": at(0.95),
        "p99": at(0.99),
        "max": at(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Asked, Bad> {
        let arguments: Vec<(String, String)> = query
            .split('&')
            .filter(|it| !it.is_empty())
            .filter_map(|it| it.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Asked::parse(&arguments, 1_000_000_000)
    }

    #[track_caller]
    fn refused(query: &str, argument: &str, part: &str) {
        let (name, reason) = parse(query).unwrap_err();
        assert_eq!(name, argument);
        assert!(reason.contains(part), "{reason}");
    }

    #[test]
    fn a_query_has_defaults() {
        let asked = parse("").unwrap();
        assert_eq!(asked.to - asked.from, RANGE_SECS);
        let query = asked.query(0, None);
        assert_eq!(
            (query.grain, query.from % 60, query.to % 60),
            (Grain::Minute, 0, 0)
        );
        assert!(query.to > 1_000_000_000);
    }

    #[test]
    fn the_grain_follows_the_range() {
        let of = |query: &str, oldest| parse(query).unwrap().query(oldest, None).grain;
        assert_eq!(of("interval=minute", 0), Grain::Minute);
        assert_eq!(of("interval=7200", 0), Grain::Hour);
        assert_eq!(of("", 999_999_999), Grain::Hour);
        assert_eq!(of("from=999000000", 0), Grain::Hour);
        let query = parse("from=999999000&interval=minute").unwrap();
        let query = query.query(999_999_999, None);
        assert_eq!((query.grain, query.interval), (Grain::Hour, Some(3_600)));
    }

    #[test]
    fn bad_arguments_are_named() {
        refused("fom=1", "fom", "filter[<dimension>]");
        refused("from=yesterday", "from", "2026-01-31T12:00:00Z");
        refused("from=-5", "from", "range");
        refused("from=2&to=1", "from", "before");
        refused("interval=61", "interval", "whole minutes");
        refused("interval=minute&from=900000000", "interval", "steps");
        refused("group_by=servise", "group_by", "service");
        refused("filter[service]=orders", "filter[service]", "id");
        refused("filter[status_class]=6xx", "filter[status_class]", "5xx");
        refused("size=0", "size", "1000");
    }
}
