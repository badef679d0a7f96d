//! Handshakes and certificates.

use super::{Status, Verdict, bad, far_owner, shorten, span};
use crate::check::Check;
use crate::interception;
use crate::seen::{CertFault, Handshake, Shown};

pub(super) fn judge_handshake<'a>(
    check: &Check,
    handshake: &'a Handshake,
    place: &str,
    now: i64,
) -> Result<&'a Shown, Verdict> {
    let wrong =
        |seen: String, ask: &str, what: &str| Err(bad(Status::Wrong, seen, ask, what.to_owned()));
    let far = far_owner(check);
    match handshake {
        Handshake::Done(shown) => judge_certificate(check, shown, place, now),
        Handshake::Silent => wrong(
            format!("{place} accepts the connection and then says nothing (half open)"),
            far,
            "the process behind that port hangs, or a middlebox accepts in its name",
        ),
        Handshake::Stalled => wrong(
            format!("{place} begins the TLS handshake and does not finish it"),
            far,
            "the far end is overloaded, or a middlebox inspects the handshake",
        ),
        Handshake::Closed => wrong(
            format!("{place} closes the connection during the TLS handshake"),
            far,
            "a middlebox that forbids this name, or a far end without TLS or for other names",
        ),
        Handshake::NotTls(text) => wrong(
            format!("{place} does not speak TLS, it says {text:?}"),
            far,
            "the port belongs to another program, or a middlebox answers",
        ),
        Handshake::Refused(reason) => wrong(
            format!("{place}: {reason}"),
            far,
            "name, certificate and TLS version must suit both",
        ),
    }
}

pub(super) fn judge_certificate<'a>(
    check: &Check,
    shown: &'a Shown,
    place: &str,
    now: i64,
) -> Result<&'a Shown, Verdict> {
    if let Some(who) = interception::by(check, shown) {
        return Err(bad(
            Status::Intercepted,
            format!(
                "{place}: TLS is intercepted, the certificate for {} is by {who}",
                check.target
            ),
            "whoever runs TLS inspection",
            format!("exempt {} from inspection", check.target),
        ));
    }
    let Some(fault) = &shown.fault else {
        return Ok(shown);
    };
    let far = far_owner(check);
    let names = shorten(&shown.names);
    let (seen, ask, what) = match fault {
        CertFault::Expired => (
            format!("the certificate expired {}", ago(now - shown.not_after)),
            far,
            "renew the certificate (or correct this machine's clock)".to_owned(),
        ),
        CertFault::NotYet => (
            format!("the certificate is valid only in {}", span(shown.not_before - now)),
            "whoever runs this machine's clock",
            "correct the clock here, or at whoever issued the certificate".to_owned(),
        ),
        CertFault::WrongName => (
            format!("the certificate is for {names}"),
            far,
            format!("a certificate for {}, or the right name here", check.target),
        ),
        CertFault::UnknownIssuer => (
            format!("the certificate is by {}, which is not trusted here", shown.issuer),
            far,
            "if that is your own authority, give its certificate (--ca); if not, TLS is intercepted"
                .to_owned(),
        ),
        CertFault::NotPinned => (
            format!("not the expected certificate; this one is by {}", shown.issuer),
            far,
            "both ends must have the same cluster certificate".to_owned(),
        ),
        CertFault::Other(reason) => {
            (format!("the certificate is refused: {reason}"), far, "a sound certificate".to_owned())
        }
    };
    Err(bad(Status::Wrong, format!("{place}: {seen}"), ask, what))
}

fn ago(secs: i64) -> String {
    format!("{} ago", span(secs))
}
