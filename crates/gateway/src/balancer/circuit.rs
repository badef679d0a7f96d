//! Whether an address is healthy: counters and limits, pure.
//!
//! A counter that reaches its limit flips the state; a failure sets the count of successes to
//! zero and a success those of all failures; a limit of 0 means that such reports do not count at
//! all; reports equal to a settled state are ignored. Source: data-plane reference 5.2 and
//! lua-resty-healthcheck 3.1.

use sallyport_model::balancing::{Healthy, Unhealthy};

/// The health of an address and what speaks for and against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Circuit {
    pub(crate) open: bool,
    pub(crate) successes: u8,
    pub(crate) tcp_failures: u8,
    pub(crate) http_failures: u8,
    pub(crate) timeouts: u8,
}

/// What came of a try or of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A response.
    Status(u16),
    /// A connection, which is all that was asked for.
    Connected,
    /// No connection, or one that broke before a response.
    TcpFailure,
    /// Nothing in time.
    Timeout,
}

/// What counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    pub(crate) healthy: &'a Healthy,
    pub(crate) unhealthy: &'a Unhealthy,
}

impl Circuit {
    /// Settled in one state, as if set by hand.
    pub(crate) fn settled(healthy: bool) -> Circuit {
        Circuit {
            open: !healthy,
            ..Circuit::default()
        }
    }

    /// The state after a report.
    pub(crate) fn after(self, report: Report, limits: Limits<'_>) -> Circuit {
        let Limits { healthy, unhealthy } = limits;
        match report {
            Report::Connected => self.success(healthy.successes),
            Report::Status(status) if healthy.http_statuses.contains(&status) => {
                self.success(healthy.successes)
            }
            // 0: an answer that is no HTTP
            Report::Status(status) if status == 0 || unhealthy.http_statuses.contains(&status) => {
                self.failure(unhealthy.http_failures, |circuit| {
                    &mut circuit.http_failures
                })
            }
            Report::Status(_) => self,
            Report::TcpFailure => {
                self.failure(unhealthy.tcp_failures, |circuit| &mut circuit.tcp_failures)
            }
            Report::Timeout => self.failure(unhealthy.timeouts, |circuit| &mut circuit.timeouts),
        }
    }

    fn failures(self) -> [u8; 3] {
        [self.tcp_failures, self.http_failures, self.timeouts]
    }

    fn success(self, limit: u8) -> Circuit {
        let is_settled = !self.open && self.failures() == [0; 3];
        if limit == 0 || is_settled {
            return self;
        }
        let successes = self.successes.saturating_add(1);
        if successes >= limit {
            return Circuit::settled(true);
        }
        Circuit {
            open: self.open,
            successes,
            ..Circuit::default()
        }
    }

    fn failure(self, limit: u8, counter: fn(&mut Circuit) -> &mut u8) -> Circuit {
        let is_settled = self.open && self.successes == 0;
        if limit == 0 || is_settled {
            return self;
        }
        let mut after = Circuit {
            successes: 0,
            ..self
        };
        let count = counter(&mut after);
        *count = count.saturating_add(1);
        if *count >= limit {
            return Circuit::settled(false);
        }
        after
    }

    /// As one number, to be kept in an atomic.
    pub(crate) fn pack(self) -> u64 {
        let [tcp, http, timeouts] = self.failures();
        u64::from_le_bytes([
            u8::from(self.open),
            self.successes,
            tcp,
            http,
            timeouts,
            0,
            0,
            0,
        ])
    }

    /// Back from [`pack`](Circuit::pack).
    pub(crate) fn unpack(packed: u64) -> Circuit {
        let [open, successes, tcp_failures, http_failures, timeouts, ..] = packed.to_le_bytes();
        Circuit {
            open: open != 0,
            successes,
            tcp_failures,
            http_failures,
            timeouts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits: successes, tcp, timeouts, http. Reports as words; after each one `+` or `-`.
    #[track_caller]
    fn check(limits: [u8; 4], reports: &str, expected: &str) {
        let [successes, tcp_failures, timeouts, http_failures] = limits;
        let healthy = Healthy {
            http_statuses: vec![200, 302],
            successes,
        };
        let unhealthy = Unhealthy {
            http_statuses: vec![429, 500],
            tcp_failures,
            timeouts,
            http_failures,
        };
        let mut circuit = Circuit::default();
        let mut states = String::new();
        for word in reports.split_whitespace() {
            let report = match word {
                "tcp" => Report::TcpFailure,
                "slow" => Report::Timeout,
                "up" => Report::Connected,
                status => Report::Status(status.parse().unwrap()),
            };
            let limits = Limits {
                healthy: &healthy,
                unhealthy: &unhealthy,
            };
            circuit = circuit.after(report, limits);
            assert_eq!(Circuit::unpack(circuit.pack()), circuit);
            states.push(if circuit.open { '-' } else { '+' });
        }
        assert_eq!(states, expected, "{reports}");
    }

    #[test]
    fn a_counter_that_reaches_its_limit_flips_the_state() {
        check([0, 2, 0, 0], "tcp tcp", "+-");
        check([0, 0, 3, 0], "slow slow slow", "++-");
        check([0, 0, 0, 1], "500", "-");
        check([2, 0, 0, 1], "429 200 302", "--+");
        check([1, 1, 0, 0], "tcp up", "-+");
    }

    #[test]
    fn counters_of_different_failures_do_not_add_up() {
        check([1, 2, 2, 2], "tcp slow 500 tcp", "+++-");
    }

    #[test]
    fn a_success_starts_all_failures_over_if_successes_count() {
        check([1, 2, 0, 2], "tcp 500 200 tcp 500", "+++++");
        check([3, 2, 0, 0], "tcp 200 tcp tcp", "+++-");
        check([0, 2, 0, 0], "tcp 200 tcp", "++-");
    }

    #[test]
    fn a_failure_starts_the_successes_over() {
        check([2, 1, 0, 0], "tcp up tcp up up", "----+");
    }

    #[test]
    fn a_limit_of_zero_never_flips() {
        check([0, 0, 0, 0], "tcp slow 500 tcp slow 500", "++++++");
        check([0, 1, 0, 0], "tcp 200 200 200", "----");
    }

    #[test]
    fn other_statuses_do_not_count() {
        check([1, 0, 0, 1], "404 204 500 404 204", "++---");
    }

    #[test]
    fn reports_equal_to_a_settled_state_leave_no_trace() {
        let healthy = Healthy {
            http_statuses: vec![200],
            successes: 5,
        };
        let unhealthy = Unhealthy {
            tcp_failures: 5,
            ..Unhealthy::default()
        };
        let limits = Limits {
            healthy: &healthy,
            unhealthy: &unhealthy,
        };
        for (state, report) in [(true, Report::Status(200)), (false, Report::TcpFailure)] {
            let settled = Circuit::settled(state);
            assert_eq!(settled.after(report, limits), settled);
        }
    }
}
