//! Deltas as edits of the configuration in force.

use sallyport_model::Kind;
use sallyport_model::schema::{Mode, parse_entity_in};
use sallyport_wire::config_sync::delta::{Deltas, Refused};

use super::source::Source;
use crate::configuration::{Configuration, Edits, Unservable};
use crate::enabled::Enabled;

/// The deltas as edits of the configuration; `None` if they take more. Bad ones are left out and
/// noted.
pub(super) fn edits(
    source: &Source,
    deltas: &Deltas,
    current: &Configuration,
    plugins: &Enabled,
    bad: &mut Vec<Refused>,
) -> Option<Edits> {
    if !source.is_whole() {
        return None;
    }
    let mut edits = Edits::default();
    for delta in &deltas.list {
        let (Some(kind), Ok(id)) = (Kind::from_table(&delta.table), delta.id.parse()) else {
            continue;
        };
        let known = |it: &Refused| it.entity_id == delta.id && it.entity_type == delta.table;
        if bad.iter().any(known) {
            continue;
        }
        let Some(entity) = &delta.entity else {
            if !edits.remove(kind, id) {
                return None;
            }
            continue;
        };
        match parse_entity_in(kind, entity.clone(), Mode::Payload, plugins) {
            Ok(entity) => {
                // one that was switched off brings back what hangs on it
                let waited = kind == Kind::Service && !current.has_service(id);
                if waited && source.has(kind, id) || !edits.put(kind, id, &entity) {
                    return None;
                }
            }
            // what it was to guard is closed, which takes a look at the whole
            Err(_) if !matches!(kind, Kind::Route | Kind::Service) => return None,
            Err(errors) => {
                let first = errors.first();
                bad.push(Refused {
                    entity_type: delta.table.clone(),
                    entity_id: delta.id.clone(),
                    entity_name: entity["name"].as_str().unwrap_or_default().to_owned(),
                    field: first.map(|it| it.path.to_string()).unwrap_or_default(),
                    message: first.map(|it| it.message.clone()).unwrap_or_default(),
                    kept: source.has(kind, id),
                    closed: false,
                });
            }
        }
    }
    Some(edits)
}

pub(super) fn refused(source: &Source, unservable: &Unservable) -> Refused {
    let id = unservable.id.unwrap_or_default();
    Refused {
        entity_type: unservable.kind.table().to_owned(),
        entity_id: id.to_string(),
        message: unservable.reason.clone(),
        kept: source.has(unservable.kind, id),
        ..Refused::default()
    }
}
