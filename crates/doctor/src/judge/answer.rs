//! What the far end, or a forward proxy, answers.

use super::{Fix, SKEW_SECS_MAX, Status, Verdict, bad, far_owner, span, told};
use crate::check::{Check, Talk, Then};
use crate::seen::Answer;

pub(super) fn judge_answer(check: &Check, answer: &Answer, place: &str, took_ms: u64) -> Verdict {
    let far = far_owner(check);
    let good = |what: String| told(Status::Open, format!("{place} {what} in {took_ms} ms"));
    let wrong = |seen: &str, what: &str| {
        bad(
            Status::Wrong,
            format!("{place} {seen}"),
            far,
            what.to_owned(),
        )
    };
    let skewed = |ahead: i64| {
        let way = if ahead > 0 { "behind" } else { "ahead of" };
        bad(
            Status::Wrong,
            format!(
                "this machine's clock is {} {way} that of {place}",
                span(ahead.abs())
            ),
            "whoever runs this machine's clock",
            "set the clock (row `ntp`): certificates and tokens depend on it".to_owned(),
        )
    };
    match answer {
        Answer::Http {
            clock_ahead_secs: Some(ahead),
            ..
        }
        | Answer::Time(ahead)
            if ahead.abs() > SKEW_SECS_MAX =>
        {
            skewed(*ahead)
        }
        Answer::Http { status, .. } => judge_http(check, *status, place, took_ms),
        Answer::Banner(text) => good(format!("says {text:?}")),
        Answer::Dns(5) => wrong(
            "refuses DNS questions of this machine",
            "allow this machine to ask",
        ),
        Answer::Dns(_) => good("answers DNS questions".to_owned()),
        Answer::Time(_) => good("tells the time".to_owned()),
        Answer::Doctor => good("answers: the doctor listens there, the way is open".to_owned()),
        Answer::CertificateRequired => wrong(
            "demands a client certificate",
            "the row needs none: another service listens there",
        ),
        Answer::CertificateRefused(reason) => wrong(
            &format!("refuses our certificate: {reason}"),
            "register this machine's certificate at the far end, or renew it",
        ),
        Answer::Silent => wrong(
            "is connected and says nothing (half open)",
            "the process behind that port hangs",
        ),
        Answer::Unfinished(text) => wrong(
            &format!("begins to answer and does not finish in time: {text:?}"),
            "the far end, or the way to it, is far too slow",
        ),
        Answer::Closed => wrong(
            "closes the connection without an answer",
            match check.talk {
                Talk::Tls { mutual: true, .. } => {
                    "the far end does not know our certificate, or serves other names only"
                }
                _ => "another program may listen there, or a middlebox cuts the connection",
            },
        ),
        Answer::Garbage(text) => wrong(
            &format!("answers something else: {text:?}"),
            "another program listens there",
        ),
    }
}

pub(super) fn judge_http(check: &Check, status: u16, place: &str, took_ms: u64) -> Verdict {
    let upgrade = matches!(
        &check.talk,
        Talk::Tls {
            then: Then::Upgrade(_),
            ..
        }
    );
    let far = far_owner(check);
    let open = |what: &str| told(Status::Open, format!("{place} {what} in {took_ms} ms"));
    let wrong = |what: &str| {
        bad(
            Status::Wrong,
            format!("{place} answers HTTP {status}"),
            far,
            what.to_owned(),
        )
    };
    match (upgrade, status) {
        (true, 101) => open("opens the WebSocket"),
        (true, 400) => open("answers, and asks for a client certificate, as it must"),
        (true, 401 | 403) => wrong("this machine's certificate must be known to the control plane"),
        (true, 404) => wrong("another service answers under this name"),
        (true, 200..=399) => wrong("no WebSocket: a middlebox or another service answers"),
        (false, 407) | (true, 407) => wrong("a transparent proxy stands in the way"),
        (_, 502..=504) => wrong("something in front of it answers, the service itself is down"),
        (true, _) => wrong("the control plane does not open the link"),
        (false, _) => open(&format!("answers HTTP {status}")),
    }
}

pub(super) fn proxy_refused(check: &Check, status: u16, reason: &str) -> Verdict {
    let via = check
        .via
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let ask = "whoever runs the forward proxy";
    let rule = Some(format!(
        "allow CONNECT {}:{} at {via}",
        check.target,
        check.port()
    ));
    let (status, what, rule) = match status {
        407 => (
            Status::Wrong,
            "give this machine credentials for the proxy".to_owned(),
            None,
        ),
        403 | 405 => (
            Status::Filtered,
            "the proxy's access rules must allow it".to_owned(),
            rule,
        ),
        502..=504 => (
            Status::Unreachable,
            "the proxy itself must resolve and reach the far end".to_owned(),
            rule,
        ),
        0 => (
            Status::Wrong,
            "an HTTP proxy that knows CONNECT must listen there".to_owned(),
            None,
        ),
        _ => (
            Status::Wrong,
            "the proxy must answer CONNECT with 200".to_owned(),
            rule,
        ),
    };
    let seen = format!("the forward proxy {via} answers CONNECT: {reason}");
    Verdict {
        status,
        seen,
        fix: Some(Fix {
            ask: ask.to_owned(),
            what,
            rule,
        }),
    }
}
