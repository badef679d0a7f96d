//! Bucket types: which rule holds for which key.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use regex::bytes::Regex;

use super::bucket::{Now, Rule};

/// What is answered while the node that a key belongs to cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreachable {
    /// A bucket of this node's own stands in.
    #[default]
    Local,
    /// Every TAKE is refused.
    Refuse,
}

/// A rule with what is beside it in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The rule.
    pub rule: Rule,
    /// Every TAKE is granted, nothing is counted; `rule.size` is only what clients are told.
    pub unlimited: bool,
    /// Unix milliseconds from which it no longer holds.
    pub until_ms: Option<u64>,
}

/// An exception for some keys of a type.
#[derive(Clone, Debug)]
pub struct Override {
    /// The key it is for, if it has no pattern.
    pub name: String,
    /// The keys it is for.
    pub pattern: Option<Regex>,
    /// What holds for them.
    pub limit: Limit,
}

/// A bucket type.
#[derive(Clone, Debug)]
pub struct BucketType {
    /// Its name.
    pub name: String,
    /// What is answered while a key's node cannot be asked.
    pub unreachable: Unreachable,
    /// What holds for keys without an override; then the overrides, in the order of the file.
    limits: Vec<Limit>,
    /// Position in `limits` of those for one key.
    by_name: HashMap<Box<[u8]>, u32, RandomState>,
    patterns: Vec<(u32, Regex)>,
}

impl BucketType {
    /// A type with its base limit and exceptions.
    pub fn new(
        name: String,
        unreachable: Unreachable,
        base: Limit,
        overrides: Vec<Override>,
    ) -> BucketType {
        let (mut limits, mut patterns) = (vec![base], Vec::new());
        let mut by_name = HashMap::default();
        for (exception, at) in overrides.into_iter().zip(1..) {
            limits.push(exception.limit);
            match exception.pattern {
                Some(pattern) => patterns.push((at, pattern)),
                None => _ = by_name.insert(exception.name.into_bytes().into(), at),
            }
        }
        BucketType {
            name,
            unreachable,
            limits,
            by_name,
            patterns,
        }
    }

    /// Position of the limit for `key`: the first override in the file's order that is for it and
    /// still holds, else the type's own. Source: limitdb.
    pub(super) fn select(&self, key: &[u8], unix_ms: u64) -> u32 {
        if self.limits.len() == 1 {
            return 0;
        }
        let holds = |at: u32| self.limit(at).until_ms.is_none_or(|until| unix_ms < until);
        let named = self.by_name.get(key).copied().filter(|at| holds(*at));
        let before = named.unwrap_or(u32::MAX);
        let matching = self.patterns.iter().find(|(at, pattern)| {
            // evaluated last: the one thing here that costs
            *at < before && holds(*at) && pattern.is_match(key)
        });
        matching.map(|(at, _)| *at).or(named).unwrap_or(0)
    }

    /// The limit at a position that [`select`](Self::select) gave.
    pub(super) fn limit(&self, at: u32) -> &Limit {
        &self.limits[at as usize]
    }
}

/// All bucket types of one reading of the file.
#[derive(Clone, Debug, Default)]
pub struct Types {
    /// Of every reading another.
    pub(super) generation: u32,
    by_name: HashMap<Box<[u8]>, Arc<Known>, RandomState>,
}

/// A type with the number under which its buckets are stored.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: u32,
    pub(super) of: BucketType,
}

impl Types {
    pub(super) fn new(generation: u32, types: impl IntoIterator<Item = Known>) -> Types {
        let named = |known: Known| (known.of.name.as_bytes().into(), Arc::new(known));
        Types {
            generation,
            by_name: types.into_iter().map(named).collect(),
        }
    }

    /// Whether there is a type of this name.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.by_name.contains_key(name)
    }

    /// What is answered for a type while a key's node is silent.
    pub(super) fn when_unreachable(&self, name: &[u8]) -> Option<Unreachable> {
        self.get(name).map(|known| known.of.unreachable)
    }

    /// How many tokens the bucket of a key can hold.
    pub(super) fn size(&self, name: &[u8], key: &[u8], now: Now) -> u32 {
        self.get(name).map_or(0, |known| {
            let at = known.of.select(key, now.unix_ms);
            known.of.limit(at).rule.size
        })
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Known> {
        self.by_name.get(name).map(Arc::as_ref)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.by_name.values().map(Arc::as_ref)
    }
}
