//! A point in time by which something must have happened, and polling until it has.

use std::time::{Duration, Instant};

/// How long a poll rests between two looks.
const POLL: Duration = Duration::from_millis(10);

/// The moment at which a wait gives up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    whole: Duration,
}

impl Deadline {
    /// Gives up `wait` from now.
    pub fn after(wait: Duration) -> Deadline {
        Deadline {
            at: Instant::now() + wait,
            whole: wait,
        }
    }

    /// Gives up `seconds` from now.
    pub fn secs(seconds: u64) -> Deadline {
        Deadline::after(Duration::from_secs(seconds))
    }

    /// The time that is left; zero once the deadline has passed.
    pub fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Whether the time is up.
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// The whole span that was granted, for messages.
    pub fn whole(self) -> Duration {
        self.whole
    }

    /// Rests for one polling interval, or less if less is left.
    pub(crate) fn rest(self) {
        std::thread::sleep(POLL.min(self.left()));
    }
}

/// Polls until `is_so`, at least once.
///
/// # Panics
/// When the deadline passes first; the message names `what`.
#[track_caller]
pub fn eventually(what: &str, deadline: Deadline, mut is_so: impl FnMut() -> bool) {
    if poll(deadline, || is_so().then_some(())).is_none() {
        panic!("not within {:?}: {what}", deadline.whole());
    }
}

/// Polls until `look` finds something, at least once, and returns it.
///
/// # Panics
/// When the deadline passes first; the message names `what`.
#[track_caller]
pub fn eventually_some<T>(what: &str, deadline: Deadline, look: impl FnMut() -> Option<T>) -> T {
    match poll(deadline, look) {
        Some(found) => found,
        None => panic!("not within {:?}: {what}", deadline.whole()),
    }
}

/// Polls `look` until it finds something or the deadline has passed, at least once.
pub(crate) fn poll<T>(deadline: Deadline, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        let last = deadline.passed();
        if let Some(found) = look() {
            return Some(found);
        }
        if last {
            return None;
        }
        deadline.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_the_third_look_finds() {
        let mut looks = 0;
        let found = eventually_some("third look", Deadline::secs(60), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, 3);
    }

    #[test]
    fn looks_once_even_if_the_time_is_up() {
        eventually("true at once", Deadline::after(Duration::ZERO), || true);
    }

    #[test]
    #[should_panic(expected = "pigs fly")]
    fn a_missed_deadline_names_what_was_awaited() {
        eventually("pigs fly", Deadline::after(Duration::ZERO), || false);
    }
}
