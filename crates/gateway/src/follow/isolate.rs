//! One bad object must not take the good ones down: what cannot be served is put back to what it
//! was, or left out, until the rest can be served. What it was to guard is [closed](crate::closed).

use std::collections::{BTreeMap, BTreeSet};

use sallyport_model::Kind;
use sallyport_model::declarative::{Place, Problem};
use sallyport_wire::config_sync::delta::Refused;
use serde_json::Value;
use uuid::Uuid;

use crate::closed::{Closed, Refusal};
use crate::configuration::Unservable;

/// How often objects are put back or left out; each round may show what hung on those before.
const ROUNDS_MAX: usize = 12;

/// Why a configuration was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Objection {
    /// The object; `None` for what is wrong with the whole.
    object: Option<(Kind, Which)>,
    field: String,
    message: String,
    name: String,
    /// One line with all of it.
    line: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// By its place in the list.
    At(usize),
    Id(Uuid),
}

impl From<&Problem> for Objection {
    fn from(problem: &Problem) -> Objection {
        let (object, name) = match &problem.place {
            Place::Object(object) => {
                let at = object.at.split(['[', ']']).nth(1);
                let at = at.and_then(|at| at.parse().ok()).map(Which::At);
                let which = at.or(object.id.map(Which::Id));
                let name = object.name.clone().unwrap_or_default();
                (which.map(|which| (object.kind, which)), name)
            }
            _ => (None, String::new()),
        };
        Objection {
            object,
            field: problem.path.to_string(),
            message: problem.message.clone(),
            name,
            line: problem.to_string(),
        }
    }
}

impl From<&Unservable> for Objection {
    fn from(unservable: &Unservable) -> Objection {
        Objection {
            object: unservable.id.map(|id| (unservable.kind, Which::Id(id))),
            field: String::new(),
            message: unservable.reason.clone(),
            name: String::new(),
            line: unservable.to_string(),
        }
    }
}

/// All of them in one line.
pub(super) fn lines(objections: &[Objection]) -> String {
    let lines: Vec<&str> = objections.iter().map(|it| it.line.as_str()).collect();
    lines.join("; ")
}

/// What was made of a table, and of which table really.
pub(super) struct Isolated<T> {
    pub(super) made: T,
    /// The table that can be served; null where nothing is refused, for then it is the one that
    /// came.
    pub(super) table: Value,
    /// What is not in it as it came.
    pub(super) refused: Vec<Refused>,
    /// What is closed because of that.
    pub(super) closed: Vec<Closed>,
}

/// An object that is refused.
struct Found {
    told: Refused,
    /// As it came.
    published: Value,
    kept: Option<Value>,
}

impl Found {
    fn closes(&self, kind: Kind, table: &Value) -> Vec<Closed> {
        let refusal = Refusal {
            kind,
            published: &self.published,
            kept: self.kept.as_ref(),
        };
        refusal.closes(&table[Kind::Service.table()])
    }
}

/// Makes something of a `config_table`. An object that `make` objects to is replaced by what
/// `before` has of it, or left out, and `make` is asked again, with what is closed because of that
/// besides what is `closed` before.
///
/// Mostly there is no objection, and a table may be large: it is given away, and `again` gives it
/// once more if there is one.
///
/// # Errors
/// The objections, if they are not about objects or do not end.
pub(super) fn isolate<T>(
    table: Value,
    again: impl FnOnce() -> Value,
    before: impl Fn(Kind, Uuid) -> Option<Value>,
    closed: &[Closed],
    mut make: impl FnMut(Value, &[Closed]) -> Result<T, Vec<Objection>>,
) -> Result<Isolated<T>, Vec<Objection>> {
    let mut objections = match make(table, closed) {
        Ok(made) => {
            return Ok(Isolated {
                made,
                table: Value::Null,
                refused: Vec::new(),
                closed: closed.to_vec(),
            });
        }
        Err(objections) => objections,
    };
    let mut table = again();
    let mut refused: BTreeMap<(Kind, String), Found> = BTreeMap::new();
    for _ in 1..ROUNDS_MAX {
        let mut places: BTreeMap<Kind, BTreeSet<usize>> = BTreeMap::new();
        for objection in &objections {
            let place = objection
                .object
                .and_then(|(kind, which)| Some((kind, place(&table, kind, which)?)));
            let Some((kind, at)) = place else {
                return Err(objections);
            };
            let entity = &table[kind.table()][at];
            let id = entity["id"].as_str().unwrap_or_default().to_owned();
            let name = match objection.name.is_empty() {
                true => entity["name"].as_str().unwrap_or_default(),
                false => &objection.name,
            };
            refused.entry((kind, id.clone())).or_insert_with(|| Found {
                told: Refused {
                    entity_type: kind.table().to_owned(),
                    entity_id: id,
                    entity_name: name.to_owned(),
                    field: objection.field.clone(),
                    message: objection.message.clone(),
                    ..Refused::default()
                },
                published: entity.clone(),
                kept: None,
            });
            places.entry(kind).or_default().insert(at);
        }
        for (kind, places) in places {
            let Some(Value::Array(list)) = table.get_mut(kind.table()) else {
                continue;
            };
            // from the end, so that places stay true
            for at in places.into_iter().rev() {
                let id = list[at]["id"].as_str().unwrap_or_default().to_owned();
                let old = id.parse().ok().and_then(|id| before(kind, id));
                let Some(found) = refused.get_mut(&(kind, id)) else {
                    continue;
                };
                match old.filter(|old| found.kept.is_none() && *old != list[at]) {
                    Some(old) => {
                        list[at] = old.clone();
                        found.kept = Some(old);
                    }
                    None => {
                        list.remove(at);
                        found.kept = None;
                    }
                }
                found.told.kept = found.kept.is_some();
            }
        }
        let mut closed = closed.to_vec();
        for ((kind, _), found) in &mut refused {
            let closes = found.closes(*kind, &table);
            found.told.closed = !closes.is_empty();
            closed.extend(closes);
        }
        objections = match make(table.clone(), &closed) {
            Ok(made) => {
                return Ok(Isolated {
                    made,
                    table,
                    refused: refused.into_values().map(|found| found.told).collect(),
                    closed,
                });
            }
            Err(objections) => objections,
        };
    }
    Err(vec![Objection {
        object: None,
        field: String::new(),
        message: String::new(),
        name: String::new(),
        line: format!("after {ROUNDS_MAX} rounds there is still something wrong"),
    }])
}

fn place(table: &Value, kind: Kind, which: Which) -> Option<usize> {
    let list = table[kind.table()].as_array()?;
    match which {
        Which::At(at) => (at < list.len()).then_some(at),
        Which::Id(id) => {
            let id = id.to_string();
            list.iter().position(|entity| entity["id"] == id.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use sallyport_model::declarative::{Format, parse};
    use serde_json::json;

    use super::*;

    fn id(n: u8) -> String {
        format!("00000000-0000-4000-8000-0000000000{n:02}")
    }

    fn isolated(
        table: Value,
        before: impl Fn(Kind, Uuid) -> Option<Value>,
    ) -> Result<Isolated<usize>, Vec<Objection>> {
        isolate(table.clone(), || table, before, &[], parsed)
    }

    fn parsed(table: Value, _: &[Closed]) -> Result<usize, Vec<Objection>> {
        parse(table, Format::Payload, sallyport_plugins::schemas())
            .map(|declared| declared.table.routes.len())
            .map_err(|bad| bad.iter().map(Objection::from).collect())
    }

    fn table(services: Value, routes: Value) -> Value {
        json!({"_format_version": "3.0", "_transform": false, "services": services, "routes": routes})
    }

    #[test]
    fn a_bad_object_and_what_hangs_on_it_are_left_out() {
        let services =
            json!([{"id": id(1), "host": "a"}, {"id": id(2), "host": "b", "port": 70000}]);
        let routes = json!([{"id": id(3), "name": "good", "paths": ["/a"], "service": id(1)},
                            {"id": id(4), "name": "hangs", "paths": ["/b"], "service": id(2)}]);
        let done = isolated(table(services, routes), |_, _| None).unwrap();
        assert_eq!(done.made, 1);
        let told: Vec<_> = done
            .refused
            .iter()
            .map(|it| (&*it.entity_id, &*it.field))
            .collect();
        assert_eq!(told, [(&*id(2), "port"), (&*id(4), "service")]);
        assert!(
            done.refused
                .iter()
                .all(|it| !it.kept && !it.message.is_empty())
        );
        assert_eq!(done.table["services"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn what_it_was_before_stays() {
        let services = json!([{"id": id(1), "host": "a", "port": "many"}]);
        let routes = json!([{"id": id(3), "paths": ["/a"], "service": id(1)}]);
        let before = |kind, _| (kind == Kind::Service).then(|| json!({"id": id(1), "host": "old"}));
        let done = isolated(table(services, routes), before).unwrap();
        assert_eq!(done.made, 1);
        assert_eq!(done.table["services"][0]["host"], "old");
        assert_eq!(done.refused.len(), 1);
        assert!(done.refused[0].kept);
    }

    #[test]
    fn what_it_was_before_may_be_as_bad() {
        let services = json!([{"id": id(1), "host": "a", "port": 70000}]);
        let before = |_, _| Some(json!({"id": id(1), "host": "a", "port": 70001}));
        let done = isolated(table(services, json!([])), before).unwrap();
        assert_eq!(done.table["services"], json!([]));
        assert!(!done.refused[0].kept);
    }

    #[test]
    fn what_is_wrong_with_the_whole_is_an_error() {
        let refused = isolated(json!({"_format_version": "9"}), |_, _| None);
        let refused = refused.map(|done| done.made).unwrap_err();
        assert!(lines(&refused).contains("_format_version"), "{refused:?}");
    }
}
