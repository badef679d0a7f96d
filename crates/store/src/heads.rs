//! Where control planes stand, for those who wait for changes.

use std::collections::BTreeMap;

use uuid::Uuid;

/// Where a control plane stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Grows with every change of an entity.
    pub revision: u64,
    /// Grows with every change of who may connect: certificates and the way they are checked.
    pub trust: u64,
}

impl Head {
    /// The later of two sights of the same control plane.
    pub(crate) fn later(self, other: Head) -> Head {
        Head {
            revision: self.revision.max(other.revision),
            trust: self.trust.max(other.trust),
        }
    }
}

/// Where every control plane stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads(pub(crate) BTreeMap<Uuid, Head>);

impl Heads {
    /// How many control planes there are, drafts among them.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Where this control plane stands; `None` if it does not exist.
    pub fn get(&self, cp: Uuid) -> Option<Head> {
        self.0.get(&cp).copied()
    }
}
