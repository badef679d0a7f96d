//! What is known about one name, and what follows from it at a point in time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::look_up::{Answer, Failure};
use crate::conf::{Dns, RecordKind};

/// The least time an answer is used: a TTL of 0 would mean a look-up for each request.
const TTL_MIN: Duration = Duration::from_secs(1);

/// The least time a failure stands: those who wait for the look-up must see it.
const FAILED_MIN: Duration = Duration::from_millis(100);

/// What is known about one name; immutable, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    answer: Option<Dated>,
    /// The latest failure since then, and until when it stands.
    failure: Option<(Instant, Arc<Failure>)>,
    /// The kind of record that answered last.
    last: Option<RecordKind>,
}

#[derive(Clone, Debug)]
struct Dated {
    answer: Arc<Answer>,
    fresh_until: Instant,
    stale_until: Instant,
}

/// What to do about a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// Go on with this; if it is stale, somebody should ask.
    Take {
        answer: &'a Arc<Answer>,
        stale: bool,
    },
    /// There is no address.
    Fail(&'a Arc<Failure>),
    /// Nothing is known: ask and wait.
    Ask,
}

impl Known {
    /// What to do now.
    pub(crate) fn next(&self, now: Instant) -> Next<'_> {
        let failure = self.failure.as_ref().filter(|(until, _)| now < *until);
        match &self.answer {
            Some(known) if now < known.fresh_until => Next::Take {
                answer: &known.answer,
                stale: false,
            },
            Some(known) if now < known.stale_until => Next::Take {
                answer: &known.answer,
                stale: failure.is_none(),
            },
            _ => failure.map_or(Next::Ask, |(_, failure)| Next::Fail(failure)),
        }
    }

    /// When [`next`](Known::next) says something else, if nobody asks before.
    pub(crate) fn changes_at(&self, now: Instant) -> Option<Instant> {
        let answer = self.answer.iter().flat_map(|known| {
            let Dated {
                fresh_until,
                stale_until,
                ..
            } = *known;
            [fresh_until, stale_until]
        });
        answer
            .chain(self.failure.iter().map(|(until, _)| *until))
            .filter(|at| *at > now)
            .min()
    }

    /// The kind of record that answered last.
    pub(crate) fn last(&self) -> Option<RecordKind> {
        self.last
    }

    /// With the outcome of a look-up.
    ///
    /// A server that says that there is no such name is believed; one that says nothing useful
    /// leaves an older answer in use until it is too stale. Source: RFC 8767 section 4.
    pub(crate) fn with(&self, outcome: Result<Answer, Failure>, dns: &Dns, now: Instant) -> Known {
        match outcome {
            Ok(answer) => {
                let fresh_until = now + answer.ttl.max(TTL_MIN);
                Known {
                    last: Some(answer.kind),
                    answer: Some(Dated {
                        answer: Arc::new(answer),
                        fresh_until,
                        stale_until: fresh_until + dns.stale_ttl,
                    }),
                    failure: None,
                }
            }
            Err(failure) => {
                let (ttl, answer) = match failure.not_found {
                    true => (dns.not_found_ttl, None),
                    false => (dns.error_ttl, self.answer.clone()),
                };
                Known {
                    answer,
                    failure: Some((now + ttl.max(FAILED_MIN), Arc::new(failure))),
                    last: self.last,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::look_up::Found;
    use super::*;

    fn answer(ip: &str, ttl: u64) -> Result<Answer, Failure> {
        Ok(Answer {
            found: vec![Found {
                ip: ip.parse().unwrap(),
                service: None,
            }],
            ttl: Duration::from_secs(ttl),
            kind: RecordKind::A,
        })
    }

    fn failure(not_found: bool) -> Result<Answer, Failure> {
        Err(Failure {
            not_found,
            reason: "gone".to_owned(),
        })
    }

    fn shown(known: &Known, now: Instant) -> String {
        match known.next(now) {
            Next::Take { answer, stale } => {
                format!("{}{}", answer.found[0].ip, if stale { "?" } else { "" })
            }
            Next::Fail(failure) => failure.reason.clone(),
            Next::Ask => "ask".to_owned(),
        }
    }

    /// What is known at each of these seconds after the given outcomes at theirs.
    #[track_caller]
    fn check(outcomes: Vec<(u64, Result<Answer, Failure>)>, expected: &[(u64, &str)]) {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let dns = Dns::default();
        let mut known = Known::default();
        for (secs, outcome) in outcomes {
            known = known.with(outcome, &dns, at(secs));
        }
        for (secs, text) in expected {
            assert_eq!(shown(&known, at(*secs)), *text, "after {secs} s");
        }
    }

    #[test]
    fn an_answer_is_fresh_then_stale_then_gone() {
        check(vec![], &[(0, "ask")]);
        check(
            vec![(0, answer("10.0.0.1", 10))],
            &[
                (9, "10.0.0.1"),
                (10, "10.0.0.1?"),
                (3609, "10.0.0.1?"),
                (3610, "ask"),
            ],
        );
        check(
            vec![(0, answer("10.0.0.1", 0))],
            &[(0, "10.0.0.1"), (1, "10.0.0.1?")],
        );
    }

    #[test]
    fn a_failure_stands_for_its_time_and_leaves_the_old_answer() {
        check(vec![(0, failure(false))], &[(0, "gone"), (1, "ask")]);
        check(
            vec![(0, answer("10.0.0.1", 10)), (20, failure(false))],
            &[(20, "10.0.0.1"), (21, "10.0.0.1?"), (3610, "ask")],
        );
        check(
            vec![(0, answer("10.0.0.1", 10)), (3610, failure(false))],
            &[(3610, "gone"), (3611, "ask")],
        );
    }

    #[test]
    fn a_name_that_is_gone_takes_its_addresses_along() {
        check(
            vec![(0, answer("10.0.0.1", 10)), (20, failure(true))],
            &[(20, "gone"), (49, "gone"), (50, "ask")],
        );
        check(
            vec![(0, failure(true)), (1, answer("10.0.0.2", 10))],
            &[(1, "10.0.0.2")],
        );
    }

    #[test]
    fn it_is_known_when_to_look_again() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let dns = Dns::default();
        let known = Known::default();
        assert_eq!(known.changes_at(start), None);
        let known = known.with(answer("10.0.0.1", 10), &dns, start);
        assert_eq!(known.changes_at(start), Some(at(10)));
        let known = known.with(failure(false), &dns, at(12));
        assert_eq!(known.changes_at(at(12)), Some(at(13)));
        assert_eq!(known.changes_at(at(13)), Some(at(3610)));
    }
}
