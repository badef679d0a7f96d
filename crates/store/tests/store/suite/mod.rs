//! Cases that hold for every engine.

pub(crate) mod around;
pub(crate) mod cluster;
pub(crate) mod drafts;
pub(crate) mod entities;
pub(crate) mod identity;
pub(crate) mod ip_addresses;
pub(crate) mod model_check;
pub(crate) mod tenants;
pub(crate) mod versions;
pub(crate) mod writers;

use sallyport_model::Kind;
use sallyport_store::{
    Actor, IfExists, NewControlPlane, OnDelete, Put, Reference, Store, StoreError,
};
use serde_json::json;
use uuid::Uuid;

pub(crate) fn actor() -> Actor {
    Actor("token:test".to_owned())
}

pub(crate) async fn control_plane(store: &Store, name: &str) -> Uuid {
    let new = NewControlPlane {
        name: name.to_owned(),
        ..NewControlPlane::default()
    };
    store.create_control_plane(&actor(), new).await.unwrap().id
}

pub(crate) fn named(kind: Kind, id: Uuid, name: &str) -> Put {
    Put {
        kind,
        id,
        body: json!({"id": id, "name": name, "created_at": 1, "updated_at": 1}),
        unique: vec![("name".to_owned(), name.to_owned())],
        foreign: Vec::new(),
        tags: Vec::new(),
        if_exists: IfExists::Replace,
    }
}

pub(crate) fn refers(mut put: Put, field: &str, kind: Kind, id: Uuid, on_delete: OnDelete) -> Put {
    put.body[field] = json!({"id": id});
    put.foreign.push(Reference {
        field: field.to_owned(),
        kind,
        id,
        on_delete,
    });
    put
}

pub(crate) fn tagged(mut put: Put, tags: &[&str]) -> Put {
    put.body["tags"] = json!(tags);
    put.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    put
}

pub(crate) async fn service(store: &Store, cp: Uuid, name: &str) -> Uuid {
    let id = Uuid::new_v4();
    store
        .put(cp, &actor(), named(Kind::Service, id, name))
        .await
        .unwrap();
    id
}

pub(crate) fn taken(field: &str, value: &str) -> StoreError {
    StoreError::UniqueTaken {
        field: field.to_owned(),
        value: value.to_owned(),
    }
}
