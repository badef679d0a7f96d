//! The fingerprint of a set of entities that follows a change without looking at the rest.
//!
//! Each entity has a digest: the first 128 bits of SHA-256 over its list's name and its JSON text.
//! A set has their sum modulo 2^128, so that the order does not matter and one entity can be
//! exchanged by a subtraction and an addition. An empty set has zero, which as a [`ConfigHash`] is
//! what a data plane without a configuration reports. It tells whether two sides have the same; it
//! is no proof against somebody who may choose entities.

use sha2::{Digest as _, Sha256};

use crate::config_hash::{ConfigHash, Hashes};

/// The digest of one entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityDigest(u128);

impl EntityDigest {
    /// Of an entity of the list `table` (such as `routes`) with this JSON text, keys in order.
    pub fn of(table: &str, text: &str) -> EntityDigest {
        let mut sha = Sha256::new();
        sha.update(table.as_bytes());
        sha.update([0]);
        sha.update(text.as_bytes());
        let whole: [u8; 32] = sha.finalize().into();
        let (first, _) = whole.split_first_chunk::<16>().expect("32 bytes have 16");
        EntityDigest(u128::from_be_bytes(*first))
    }
}

impl std::fmt::Display for EntityDigest {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for EntityDigest {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<EntityDigest, std::num::ParseIntError> {
        u128::from_str_radix(text, 16).map(EntityDigest)
    }
}

/// Lists with a hash of their own in [`Hashes`]; all others share the last part.
const PARTS: [&str; 5] = ["routes", "services", "plugins", "upstreams", "targets"];

/// The digest of a set of entities, in the parts that data planes ask about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetDigest([u128; 6]);

impl SetDigest {
    /// The entity is in the set from now on.
    pub fn add(&mut self, table: &str, entity: EntityDigest) {
        let part = self.part(table);
        *part = part.wrapping_add(entity.0);
    }

    /// The entity, which was in the set, is not any more.
    pub fn remove(&mut self, table: &str, entity: EntityDigest) {
        let part = self.part(table);
        *part = part.wrapping_sub(entity.0);
    }

    /// The set with the entities of another besides. With one that was made by taking away from
    /// nothing, the set without these.
    #[must_use]
    pub fn plus(mut self, other: SetDigest) -> SetDigest {
        for (part, other) in self.0.iter_mut().zip(other.0) {
            *part = part.wrapping_add(other);
        }
        self
    }

    /// As the hash of a configuration; zeros for an empty set.
    pub fn hash(&self) -> ConfigHash {
        let all = self
            .0
            .iter()
            .fold(0_u128, |sum, part| sum.wrapping_add(*part));
        ConfigHash::from_digest(all.to_be_bytes())
    }

    /// The hashes that a whole configuration carries.
    pub fn hashes(&self) -> Hashes {
        let [routes, services, plugins, upstreams, targets, _] = self
            .0
            .map(|part| ConfigHash::from_digest(part.to_be_bytes()));
        Hashes {
            config: self.hash(),
            routes,
            services,
            plugins,
            upstreams,
            targets,
        }
    }

    fn part(&mut self, table: &str) -> &mut u128 {
        let at = PARTS.iter().position(|part| *part == table);
        &mut self.0[at.unwrap_or(PARTS.len())]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLES: [&str; 3] = ["routes", "consumers", "acls"];

    #[test]
    fn an_empty_set_is_no_configuration_and_parts_are_told_apart() {
        let mut set = SetDigest::default();
        assert!(set.hash().is_zero());
        let route = EntityDigest::of("routes", "{}");
        assert_ne!(route, EntityDigest::of("services", "{}"));
        assert_eq!(route.to_string().parse(), Ok(route));
        // where the name of the list ends is part of it
        assert_ne!(
            EntityDigest::of("acl", "s{}"),
            EntityDigest::of("acls", "{}")
        );
        set.add("routes", route);
        let hashes = set.hashes();
        assert_eq!(hashes.config, set.hash());
        assert!(!hashes.routes.is_zero() && hashes.services.is_zero());
        set.add("consumers", EntityDigest::of("consumers", "{}"));
        assert_eq!(set.hashes().routes, hashes.routes);
        assert_ne!(set.hash(), hashes.config);
    }

    proptest! {
        #[test]
        fn order_and_detours_do_not_matter(
            texts in proptest::collection::vec((0usize..3, "[a-c]{0,3}"), 0..20),
            gone in proptest::collection::vec((0usize..3, "[a-c]{0,3}"), 0..20),
        ) {
            let mut straight = SetDigest::default();
            for (table, text) in &texts {
                straight.add(TABLES[*table], EntityDigest::of(TABLES[*table], text));
            }
            let mut other = SetDigest::default();
            for (table, text) in gone.iter().chain(texts.iter().rev()) {
                other.add(TABLES[*table], EntityDigest::of(TABLES[*table], text));
            }
            for (table, text) in &gone {
                other.remove(TABLES[*table], EntityDigest::of(TABLES[*table], text));
            }
            prop_assert_eq!(straight, other);
            prop_assert_eq!(straight.hash(), other.hash());
        }
    }
}
