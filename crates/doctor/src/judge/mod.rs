//! From what was seen to a verdict, with whom to ask and the rule that is missing. Pure.

mod answer;
mod certificate;
mod idle;

use std::net::IpAddr;

use sallyport_contract::{Flow, Owner};
use serde::Serialize;

use crate::check::{Check, Talk, Target};
use crate::seen::{Answer, Attempt, End, Icmp, Resolution, Seen, Small, Talked};

pub use idle::{Fate, judge_idle};

use answer::{judge_answer, proxy_refused};
use certificate::judge_handshake;

/// Clocks may differ by this much before it is told: certificates and tokens bear less than a
/// minute or two.
const SKEW_SECS_MAX: i64 = 60;

/// The state of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Open, and the right far end answers.
    Open,
    /// Something is missing that would prove it; nothing speaks against it.
    Unproven,
    /// Nothing to try, with the reason.
    Skipped,
    /// The way is there, the answer is not what it must be.
    Wrong,
    /// Somebody in between ends the TLS.
    Intercepted,
    /// The name has no address.
    Unresolved,
    /// No way to the far end, as a router or this machine says.
    Unreachable,
    /// No answer: a firewall drops it.
    Filtered,
    /// Refused: nobody listens, or a firewall rejects.
    Closed,
}

impl Status {
    /// Whether somebody has to do something.
    pub const fn is_bad(self) -> bool {
        !matches!(self, Status::Open | Status::Unproven | Status::Skipped)
    }

    /// The word in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Unproven => "unproven",
            Status::Skipped => "skipped",
            Status::Wrong => "wrong",
            Status::Intercepted => "intercepted",
            Status::Unresolved => "unresolved",
            Status::Unreachable => "unreachable",
            Status::Filtered => "filtered",
            Status::Closed => "closed",
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// Who can do it.
    pub ask: String,
    /// What they have to do, in one line.
    pub what: String,
    /// The firewall rule, where one is missing.
    pub rule: Option<String>,
}

/// A judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The state.
    pub status: Status,
    /// What was seen, in one line.
    pub seen: String,
    /// What to do, if anything.
    pub fix: Option<Fix>,
}

/// Judges what `check` saw at the Unix second `now`.
///
/// Of several addresses the worst counts, as clients take whichever comes first; a family for which
/// this machine has no route is left out if the other one works.
pub fn judge(check: &Check, seen: &Seen, now: i64) -> Verdict {
    if let Some(verdict) = judge_name(check, seen) {
        return verdict;
    }
    let tried: Vec<(&Attempt, Verdict)> = seen
        .attempts
        .iter()
        .map(|it| (it, judge_end(check, it, now)))
        .collect();
    let routed = tried.iter().any(|(it, _)| it.end != End::NoRoute);
    let counted: Vec<&(&Attempt, Verdict)> = tried
        .iter()
        .filter(|(it, _)| !routed || it.end != End::NoRoute)
        .collect();
    // Backwards, so that of equals the first counts.
    let Some((_, worst)) = counted
        .iter()
        .rev()
        .max_by_key(|(_, verdict)| verdict.status)
    else {
        return told(Status::Skipped, "no address to try".to_owned());
    };
    let (good, all) = (
        counted.iter().filter(|it| !it.1.status.is_bad()).count(),
        counted.len(),
    );
    let mut worst = worst.clone();
    if worst.status.is_bad() && good > 0 {
        worst.seen = format!("{} ({good} of {all} addresses are fine)", worst.seen);
    }
    worst
}

fn told(status: Status, seen: String) -> Verdict {
    Verdict {
        status,
        seen,
        fix: None,
    }
}

fn bad(status: Status, seen: String, ask: &str, what: String) -> Verdict {
    Verdict {
        status,
        seen,
        fix: Some(Fix {
            ask: ask.to_owned(),
            what,
            rule: None,
        }),
    }
}

/// Who runs the far end.
fn far_owner(check: &Check) -> &'static str {
    match check.owner {
        Owner::Installation => "the operator of this installation",
        Owner::Site => "your organisation's operator of that service",
        Owner::Vendor => "the vendor's support",
        Owner::ThirdParty => "the provider of that service",
    }
}

fn judge_name(check: &Check, seen: &Seen) -> Option<Verdict> {
    let Target::Name(name) = &check.target else {
        return None;
    };
    let ask = "whoever runs DNS for this machine";
    match seen.resolution.as_ref()? {
        Resolution::NoSuchName => Some(bad(
            Status::Unresolved,
            format!("{name} has no address"),
            ask,
            format!("the name {name} must resolve here (check its spelling, and split DNS)"),
        )),
        Resolution::Failed(reason) => Some(bad(
            Status::Unresolved,
            format!("looking up {name} failed: {reason}"),
            ask,
            "a resolver must be reachable from here (row `dns`)".to_owned(),
        )),
        Resolution::Silent => Some(bad(
            Status::Unresolved,
            format!("looking up {name}: no answer from the resolver"),
            ask,
            "a resolver must answer from here (row `dns`)".to_owned(),
        )),
        Resolution::Addresses(addresses) => {
            let known = |it: &IpAddr| check.expected.iter().any(|net| net.contains(*it));
            let strange: Vec<String> = addresses
                .iter()
                .filter(|it| !known(it))
                .map(ToString::to_string)
                .collect();
            if check.expected.is_empty() || strange.is_empty() {
                return None;
            }
            let expected: Vec<String> = check.expected.iter().map(ToString::to_string).collect();
            Some(bad(
                Status::Wrong,
                format!("DNS says {name} is {}", shorten(&strange)),
                ask,
                format!(
                    "{name} must be {} (or correct that list)",
                    shorten(&expected)
                ),
            ))
        }
    }
}

/// At most five, and how many more.
fn shorten(items: &[String]) -> String {
    match items.get(5..) {
        Some(rest) if !rest.is_empty() => {
            format!("{} and {} more", items[..5].join(", "), rest.len())
        }
        _ => items.join(", "),
    }
}

/// The rule that lets the check through, as words that fit any firewall.
fn rule(check: &Check, address: IpAddr) -> String {
    let name = match &check.target {
        Target::Name(name) => format!(" ({name})"),
        Target::Address(_) => String::new(),
    };
    match (&check.via, check.flow) {
        (Some(via), _) => format!("allow out tcp to the forward proxy {via}"),
        (None, Flow::Port(port)) => {
            format!(
                "allow out {} to {address}{name} port {}",
                port.transport, port.port
            )
        }
        (None, Flow::IcmpEcho) => format!("allow out icmp echo-request to {address}{name}"),
    }
}

fn judge_end(check: &Check, attempt: &Attempt, now: i64) -> Verdict {
    let address = attempt.address.ip();
    let place = match check.flow {
        Flow::Port(_) => attempt.address.to_string(),
        Flow::IcmpEcho => address.to_string(),
    };
    let network = "the network team: a firewall between this machine and the far end";
    let with_rule = |mut verdict: Verdict| {
        if let Some(fix) = &mut verdict.fix {
            fix.rule = Some(rule(check, address));
        }
        verdict
    };
    match &attempt.end {
        End::Silent => with_rule(bad(
            Status::Filtered,
            format!("{place} does not answer: the packets are dropped on the way"),
            network,
            "let it through".to_owned(),
        )),
        End::Refused => with_rule(bad(
            Status::Closed,
            format!("{place} refuses: nothing listens there, or a firewall rejects"),
            if check.via.is_some() {
                "whoever runs the forward proxy"
            } else {
                far_owner(check)
            },
            format!(
                "start the {} there; if it runs, a firewall must let it through",
                check.far
            ),
        )),
        End::Unreachable(reason) => with_rule(bad(
            Status::Unreachable,
            format!("{place}: a router or firewall says: {reason}"),
            network,
            "routing to the far end, or a rule that rejects".to_owned(),
        )),
        End::NoRoute => bad(
            Status::Unreachable,
            format!("{place}: this machine has no route there"),
            "whoever runs this machine's network",
            "an address and a route of this family".to_owned(),
        ),
        End::Forbidden => with_rule(bad(
            Status::Filtered,
            format!("{place}: this machine's own firewall forbids it"),
            "whoever runs this machine",
            "let it out".to_owned(),
        )),
        End::ProxyRefused { status, reason } => proxy_refused(check, *status, reason),
        End::Sent => told(
            Status::Unproven,
            format!("sent to {place}, not refused; no answer is defined for it"),
        ),
        End::Icmp(Icmp::Reply) => told(
            Status::Open,
            format!("{place} answers in {} ms", attempt.took_ms),
        ),
        End::Icmp(Icmp::Silent) => with_rule(bad(
            Status::Filtered,
            format!("{place} does not answer echo requests"),
            network,
            "let ICMP echo through, in both directions".to_owned(),
        )),
        End::Icmp(Icmp::NoRight { tcp_answers }) => {
            let also = if *tcp_answers {
                "the host answers on TCP"
            } else {
                "no answer on TCP either"
            };
            told(
                Status::Unproven,
                format!(
                    "this user may not send ICMP (setcap cap_net_raw+ep, or net.ipv4.ping_group_range); {also}"
                ),
            )
        }
        End::Answered(answer) => judge_answer(check, answer, &place, attempt.took_ms),
        End::Connected(talked) => judge_talk(check, talked, &place, attempt.took_ms, now),
    }
}

fn judge_talk(check: &Check, talked: &Talked, place: &str, took_ms: u64, now: i64) -> Verdict {
    if talked.doctor {
        return told(
            Status::Open,
            format!("{place}: the doctor listens there, so the way is open, in {took_ms} ms"),
        );
    }
    if let Some(Small::Works(bytes)) = talked.small {
        return bad(
            Status::Filtered,
            format!("{place} connects, but only small packets pass ({bytes} bytes a segment)"),
            "the network team: path MTU discovery is broken on the way (ICMP is dropped)",
            format!(
                "allow ICMP `fragmentation needed`/`packet too big`, or clamp the MSS to {bytes}"
            ),
        );
    }
    let mut note = String::new();
    if let Some(handshake) = &talked.handshake {
        let shown = match judge_handshake(check, handshake, place, now) {
            Ok(shown) => shown,
            Err(verdict) => return verdict,
        };
        note = format!(", certificate by {}", shown.issuer);
    }
    let mutual = matches!(check.talk, Talk::Tls { mutual: true, .. });
    match &talked.answer {
        None => told(Status::Open, format!("{place} open in {took_ms} ms{note}")),
        Some(Answer::Http { status: 101, .. }) if mutual && !talked.ours_shown => bad(
            Status::Wrong,
            format!("{place} opens the link without a client certificate"),
            far_owner(check),
            "the far end must demand one: whoever finds this port gets the configuration"
                .to_owned(),
        ),
        Some(Answer::CertificateRequired) if mutual => told(
            Status::Open,
            format!(
                "{place} open in {took_ms} ms{note}; asks for a client certificate, as it must"
            ),
        ),
        Some(answer) => {
            let mut verdict = judge_answer(check, answer, place, took_ms);
            if verdict.status == Status::Open {
                verdict.seen.push_str(&note);
            }
            verdict
        }
    }
}

/// A time for people.
fn span(secs: i64) -> String {
    match secs.max(0) {
        secs @ 0..=119 => format!("{secs} seconds"),
        secs @ 120..=7199 => format!("{} minutes", secs / 60),
        secs @ 7200..=172_799 => format!("{} hours", secs / 3600),
        secs => format!("{} days", secs / 86_400),
    }
}
