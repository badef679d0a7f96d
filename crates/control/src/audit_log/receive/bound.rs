//! Bounds per sender: records per second, and connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Senders that are remembered; beyond that all others share one allowance.
const SENDERS_MAX: usize = 10_000;

/// An allowance of records per second for each address; a second's worth may come at once.
pub(super) struct Buckets {
    per_second: f64,
    levels: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl Buckets {
    pub(super) fn new(per_second: u32) -> Buckets {
        Buckets {
            per_second: f64::from(per_second),
            levels: Mutex::default(),
        }
    }

    /// Takes the allowance of one record, if there is one.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> bool {
        self.with(address, now, |level| {
            let enough = *level >= 1.0;
            if enough {
                *level -= 1.0;
            }
            enough
        })
    }

    /// Takes the allowance of `count` records that are there already; how long to wait until more
    /// may come.
    pub(super) fn owe(&self, address: IpAddr, count: usize, now: Instant) -> Duration {
        let debt = self.with(address, now, |level| {
            *level -= count as f64;
            -*level
        });
        Duration::try_from_secs_f64(debt / self.per_second).unwrap_or_default()
    }

    fn with<T>(&self, address: IpAddr, now: Instant, op: impl FnOnce(&mut f64) -> T) -> T {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.per_second;
        let mut address = address.to_canonical();
        if levels.len() >= SENDERS_MAX && !levels.contains_key(&address) {
            let second = Duration::from_secs(1);
            levels.retain(|_, (level, at)| {
                *level < 0.0 || now.saturating_duration_since(*at) < second
            });
            if levels.len() >= SENDERS_MAX {
                address = IpAddr::from([0; 4]);
            }
        }
        let (level, at) = levels.entry(address).or_insert((full, now));
        let gained = now.saturating_duration_since(*at).as_secs_f64() * full;
        *level = (*level + gained).min(full);
        *at = now;
        op(level)
    }
}

/// Connections of each address.
#[derive(Default)]
pub(super) struct Doors(Mutex<HashMap<IpAddr, usize>>);

/// A connection that is counted until this is dropped.
pub(super) struct Inside {
    doors: Arc<Doors>,
    address: IpAddr,
}

impl Doors {
    /// Counts a connection, unless its address has `max` already.
    pub(super) fn enter(self: &Arc<Doors>, address: IpAddr, max: usize) -> Option<Inside> {
        let address = address.to_canonical();
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inside.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Inside {
            doors: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut inside = self.doors.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = inside.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn an_allowance_is_used_up_and_comes_back() {
        let buckets = Buckets::new(2);
        let now = Instant::now();
        assert!(buckets.take(A, now) && buckets.take(A, now) && !buckets.take(A, now));
        assert!(buckets.take(B, now));
        let later = now + Duration::from_millis(500);
        assert!(buckets.take(A, later) && !buckets.take(A, later));
        assert_eq!(buckets.owe(B, 1, now), Duration::ZERO);
        assert_eq!(buckets.owe(B, 4, now), Duration::from_secs(2));
    }

    #[test]
    fn an_address_has_so_many_connections() {
        let doors = Arc::new(Doors::default());
        let first = doors.enter(A, 1);
        assert!(first.is_some() && doors.enter(A, 1).is_none() && doors.enter(B, 1).is_some());
        drop(first);
        assert!(doors.enter(A, 1).is_some());
        assert!(doors.0.lock().unwrap().is_empty());
    }
}
