//! A list of shared parts, in groups that are shared as well.

use std::sync::Arc;

/// Parts in a group, a power of two.
const GROUP: usize = 64;

/// Parts that a copy shares with what it was made from, until it changes one.
///
/// Copying looks at one in 64 of them: at a hundred thousand entities in parts of about a hundred
/// that is a few dozen. A look-up goes through one more pointer for it.
#[derive(Debug)]
pub struct Parts<T> {
    groups: Vec<Arc<Vec<Arc<T>>>>,
}

impl<T> Clone for Parts<T> {
    fn clone(&self) -> Parts<T> {
        Parts {
            groups: self.groups.clone(),
        }
    }
}

impl<T> Default for Parts<T> {
    fn default() -> Parts<T> {
        Parts { groups: Vec::new() }
    }
}

impl<T> Parts<T> {
    /// Parts.
    pub fn len(&self) -> usize {
        // all groups but the last are full
        match self.groups.split_last() {
            Some((last, full)) => full.len() * GROUP + last.len(),
            None => 0,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The part at a place.
    pub fn get(&self, at: usize) -> Option<&T> {
        self.groups.get(at / GROUP)?.get(at % GROUP).map(|it| &**it)
    }

    /// Adds one at the end.
    pub fn push(&mut self, part: T) {
        match self.groups.last_mut() {
            Some(last) if last.len() < GROUP => Arc::make_mut(last).push(Arc::new(part)),
            _ => self.groups.push(Arc::new(vec![Arc::new(part)])),
        }
    }

    /// Puts one in the place of another.
    ///
    /// # Panics
    /// If there is none at this place.
    pub fn set(&mut self, at: usize, part: T) {
        Arc::make_mut(&mut self.groups[at / GROUP])[at % GROUP] = Arc::new(part);
    }

    /// The part at a place, to change it.
    ///
    /// # Panics
    /// If there is none at this place.
    pub fn change(&mut self, at: usize) -> &mut T
    where
        T: Clone,
    {
        Arc::make_mut(&mut Arc::make_mut(&mut self.groups[at / GROUP])[at % GROUP])
    }

    /// All parts, from the first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.shared().map(|part| &**part)
    }

    /// The same with what they are shared by.
    pub fn shared(&self) -> impl Iterator<Item = &Arc<T>> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// Whether this is a copy of the other that nothing was done to, or the other way round.
    pub fn is_same(&self, other: &Parts<T>) -> bool {
        let mut pairs = self.groups.iter().zip(&other.groups);
        self.groups.len() == other.groups.len() && pairs.all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl<T> FromIterator<T> for Parts<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Parts<T> {
        let mut parts = Parts::default();
        all.into_iter().for_each(|part| parts.push(part));
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_copies_one_group_and_one_part() {
        let parts: Parts<usize> = (0..1_000).collect();
        assert_eq!((parts.len(), parts.is_empty()), (1_000, false));
        let mut next = parts.clone();
        assert!(next.is_same(&parts));
        *next.change(500) = 7;
        next.set(501, 8);
        next.push(9);
        assert!(!next.is_same(&parts));
        assert_eq!((next.len(), parts.len()), (1_001, 1_000));
        assert_eq!(
            [500, 501, 502, 1_000].map(|at| next.get(at).copied()),
            [Some(7), Some(8), Some(502), Some(9)]
        );
        assert_eq!(parts.get(500), Some(&500));
        assert!(parts.iter().copied().eq(0..1_000));
        let pairs = parts.shared().zip(next.shared());
        assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 2);
        let pairs = parts.groups.iter().zip(&next.groups);
        // the one that was changed, and the last, which grew
        assert_eq!(pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 2);
    }
}
