//! Many like events become few records, so that neither a busy client nor a hostile one fills the
//! disk. Nothing is hidden: a record says how many like ones came before it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use uuid::Uuid;

/// Keys that are remembered.
const KEYS_MAX: usize = 10_000;

/// Events that count as like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Like {
    /// Use of one credential (or one data plane's certificate) from one address.
    Success(Uuid, IpAddr),
    /// Failures from one address, or one /64 of IPv6.
    Failure(IpAddr),
    /// Failures from addresses beyond those that are remembered.
    OtherFailures,
}

impl Like {
    pub(super) fn failure(address: IpAddr) -> Like {
        Like::Failure(match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits() >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from_bits(bits))
            }
        })
    }

    /// How many are recorded one by one, within how many milliseconds.
    fn allowance(self) -> (u32, i64) {
        match self {
            Like::Success(..) => (1, 5 * 60_000),
            Like::Failure(_) => (20, 60_000),
            Like::OtherFailures => (100, 60_000),
        }
    }
}

struct Window {
    until_ms: i64,
    recorded: u32,
    repeated: u64,
}

/// What was recorded lately.
#[derive(Default)]
pub(super) struct Quiet {
    windows: HashMap<Like, Window>,
}

impl Quiet {
    /// Whether to record an event of now: how many like ones were left out since the last record;
    /// `None` if this one is left out too.
    pub(super) fn admit(&mut self, like: Like, now_ms: i64) -> Option<u64> {
        let mut like = like;
        if self.windows.len() >= KEYS_MAX && !self.windows.contains_key(&like) {
            self.windows
                .retain(|_, window| window.until_ms > now_ms || window.repeated > 0);
            if self.windows.len() >= KEYS_MAX {
                match like {
                    Like::Success(..) => return Some(0),
                    Like::Failure(_) | Like::OtherFailures => like = Like::OtherFailures,
                }
            }
        }
        let (allowed, window_ms) = like.allowance();
        let window = self.windows.entry(like).or_insert(Window {
            until_ms: now_ms + window_ms,
            recorded: 0,
            repeated: 0,
        });
        if window.until_ms <= now_ms {
            window.until_ms = now_ms + window_ms;
            window.recorded = 0;
        }
        if window.recorded < allowed {
            window.recorded += 1;
            return Some(std::mem::take(&mut window.repeated));
        }
        window.repeated += 1;
        None
    }

    /// Forgets what is over; failures that were left out and not told of yet, with their number.
    pub(super) fn sweep(&mut self, now_ms: i64) -> Vec<(Option<IpAddr>, u64)> {
        let mut untold = Vec::new();
        self.windows.retain(|like, window| {
            if window.until_ms > now_ms {
                return true;
            }
            match like {
                Like::Failure(address) if window.repeated > 0 => {
                    untold.push((Some(*address), window.repeated));
                }
                Like::OtherFailures if window.repeated > 0 => untold.push((None, window.repeated)),
                _ => {}
            }
            false
        });
        untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_failures_are_counted_and_told() {
        let mut quiet = Quiet::default();
        let like = Like::failure("192.0.2.1".parse().unwrap());
        for _ in 0..20 {
            assert_eq!(quiet.admit(like, 0), Some(0));
        }
        for _ in 0..3 {
            assert_eq!(quiet.admit(like, 59_999), None);
        }
        assert_eq!(quiet.sweep(59_999), []);
        assert_eq!(quiet.admit(like, 60_000), Some(3));
        for _ in 0..20 {
            quiet.admit(like, 60_000);
        }
        assert_eq!(
            quiet.sweep(120_000),
            [(Some("192.0.2.1".parse().unwrap()), 1)]
        );
        assert_eq!(quiet.sweep(120_000), []);
    }

    #[test]
    fn a_credential_is_told_once_in_a_while_per_address() {
        let mut quiet = Quiet::default();
        let like = |last: u8| Like::Success(Uuid::nil(), IpAddr::from([192, 0, 2, last]));
        assert_eq!(quiet.admit(like(1), 0), Some(0));
        assert_eq!(quiet.admit(like(1), 299_999), None);
        assert_eq!(quiet.admit(like(2), 299_999), Some(0));
        assert_eq!(quiet.admit(like(1), 300_000), Some(1));
    }

    #[test]
    fn addresses_without_number_share_one_allowance() {
        let mut quiet = Quiet::default();
        for number in 0..20_000_u32 {
            quiet.admit(Like::failure(IpAddr::V4(number.into())), 0);
        }
        assert!(quiet.windows.len() <= KEYS_MAX + 1);
        assert_eq!(
            quiet.admit(Like::failure(IpAddr::V4(99_999.into())), 0),
            None
        );
        // one network of IPv6 is one sender
        let like = |text: &str| Like::failure(text.parse().unwrap());
        assert_eq!(like("2001:db8::1"), like("2001:db8::2:1"));
        assert_ne!(like("2001:db8::1"), like("2001:db8:0:1::1"));
    }
}
