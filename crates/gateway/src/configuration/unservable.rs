//! What is told of an entity that cannot be served.

use std::fmt;

use sallyport_model::Kind;
use uuid::Uuid;

/// Something in a configuration that this gateway cannot serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unservable {
    /// Its kind.
    pub kind: Kind,
    /// Its id, if that is known.
    pub id: Option<Uuid>,
    /// The entity, as `route 1f0c… (orders)`.
    pub entity: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Unservable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.entity, self.reason)
    }
}

impl Unservable {
    pub(super) fn new(kind: Kind, id: Uuid, name: Option<&str>, reason: String) -> Unservable {
        let entity = match name {
            Some(name) => format!("{kind} {id} ({name})"),
            None => format!("{kind} {id}"),
        };
        Unservable {
            kind,
            id: Some(id),
            entity,
            reason,
        }
    }
}
