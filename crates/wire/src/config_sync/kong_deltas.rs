//! Changes on protocol v2 in the form that Kong's own data planes take.
//!
//! There every entity is in a workspace, which is an entity itself. Here is one only, under the id
//! that Kong gives it where a configuration names none; a data plane that changes between the two
//! protocols keeps it.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::delta::{Delta, Deltas};
use super::rpc;

/// Id of the workspace `default`.
pub const WORKSPACE: &str = "0dc6f45b-8f8d-40d2-a504-473544ee190b";

/// The result of [`super::delta::GET_DELTA`]. Entities have references as objects.
///
/// What is gone comes first: a data plane that writes an entity and then removes another that had
/// the same name loses the name. Where a version brings nothing, the workspace carries it, because
/// a data plane takes a version from a delta and from nowhere else.
pub fn result(deltas: &Deltas) -> Box<RawValue> {
    let version = deltas.version.as_str();
    let moved = deltas.from != Some(deltas.version);
    let mut list = Vec::with_capacity(deltas.list.len() + 1);
    if deltas.full || moved && deltas.list.is_empty() {
        list.push(json!({
            "type": "workspaces", "version": version, "ws_id": WORKSPACE,
            "entity": {"id": WORKSPACE, "name": "default"},
        }));
    }
    let (gone, there): (Vec<&Delta>, Vec<&Delta>) =
        deltas.list.iter().partition(|delta| delta.entity.is_none());
    for delta in gone {
        list.push(json!({
            "type": delta.table, "version": version, "ws_id": WORKSPACE,
            "entity": null, "pk": {"id": delta.id},
        }));
    }
    for delta in there {
        let mut entity = delta.entity.clone().unwrap_or_default();
        entity["ws_id"] = Value::from(WORKSPACE);
        list.push(json!({
            "type": delta.table, "version": version, "ws_id": WORKSPACE, "entity": entity,
        }));
    }
    rpc::raw(&json!({"default": {"deltas": list, "full_sync": deltas.full}}))
}

#[cfg(test)]
mod tests {
    use super::super::delta::SyncVersion;
    use super::*;

    const ID: &str = "7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11";

    fn told(full: bool, from: Option<u64>, list: Vec<Delta>) -> Value {
        let deltas = Deltas {
            full,
            from: from.map(|from| SyncVersion::new(1, from)),
            version: SyncVersion::new(1, 7),
            hash: None,
            list,
        };
        let told: Value = serde_json::from_str(result(&deltas).get()).unwrap();
        assert_eq!(told["default"]["full_sync"], full);
        told["default"]["deltas"].clone()
    }

    #[test]
    fn each_delta_names_workspace_and_version_and_what_is_gone_comes_first() {
        let version = "v02_0000000000010000000000000007";
        let workspace = json!({"type": "workspaces", "version": version, "ws_id": WORKSPACE,
            "entity": {"id": WORKSPACE, "name": "default"}});
        let route = Delta {
            table: "routes".to_owned(),
            id: ID.to_owned(),
            entity: Some(json!({"id": ID, "service": {"id": ID}})),
        };
        let shown = json!({"type": "routes", "version": version, "ws_id": WORKSPACE,
            "entity": {"id": ID, "service": {"id": ID}, "ws_id": WORKSPACE}});
        assert_eq!(
            told(true, None, vec![route.clone()]),
            json!([workspace, shown])
        );
        let gone = Delta {
            table: "services".to_owned(),
            id: ID.to_owned(),
            entity: None,
        };
        let removed = json!({"type": "services", "version": version, "ws_id": WORKSPACE,
            "entity": null, "pk": {"id": ID}});
        assert_eq!(
            told(false, Some(6), vec![route, gone]),
            json!([removed, shown])
        );
        // a version that brings nothing, and none
        assert_eq!(told(false, Some(6), vec![]), json!([workspace]));
        assert_eq!(told(false, Some(7), vec![]), json!([]));
        assert_eq!(told(true, None, vec![]), json!([workspace]));
    }
}
