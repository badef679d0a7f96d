//! How long the way keeps silent connections.

use std::time::Duration;

use super::{Fix, Status, Verdict};
use crate::check::Check;

/// What became of a connection on which nothing was said for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was still there.
    Kept,
    /// It was closed in order, after this time.
    Closed(Duration),
    /// It was gone without a word: probes got no answer.
    Vanished,
    /// Somebody knew nothing of it any more and said so.
    Reset,
    /// It could not be opened.
    Unreached,
}

/// What this product needs at least: its links are never silent for longer than half of this.
const NEEDED: Duration = Duration::from_secs(60);

/// Judges pauses and what became of them, the longest first.
pub fn judge_idle(check: &Check, fates: &[(Duration, Fate)]) -> Verdict {
    let secs = |span: Duration| format!("{} s", span.as_secs());
    let kept = fates.iter().find(|(_, fate)| *fate == Fate::Kept);
    let kept = kept.map(|(pause, _)| *pause);
    let lost = fates
        .iter()
        .rev()
        .find(|(_, fate)| matches!(fate, Fate::Vanished | Fate::Reset));
    if let Some((pause, fate)) = lost {
        let how = match fate {
            Fate::Reset => "answered with a reset",
            _ => "dropped without a word",
        };
        let from = kept
            .filter(|kept| kept < pause)
            .map_or_else(String::new, |kept| {
                format!("{} of silence are kept, ", secs(kept))
            });
        // TCP connections that are idle must be kept for two hours (RFC 5382 REQ-5)
        let enough = kept.is_some_and(|kept| kept >= NEEDED);
        return Verdict {
            status: if enough {
                Status::Unproven
            } else {
                Status::Filtered
            },
            seen: format!("{from}after {} the connection is {how}", secs(*pause)),
            fix: Some(Fix {
                ask: "whoever runs the firewall or address translation on the way".to_owned(),
                what: format!(
                    "keep idle TCP connections to {} for at least {}, better two hours \
                     (RFC 5382)",
                    check.place(),
                    secs(NEEDED)
                ),
                rule: None,
            }),
        };
    }
    let closed = fates.iter().find_map(|(_, fate)| match fate {
        Fate::Closed(after) => Some(*after),
        _ => None,
    });
    let (status, seen) = match (kept, closed) {
        (Some(kept), None) => (Status::Open, format!("{} of silence are kept", secs(kept))),
        (kept, Some(after)) => {
            let before = kept.map_or_else(String::new, |kept| {
                format!("{} of silence are kept; ", secs(kept))
            });
            let seen = format!(
                "{before}the far end itself closes after {}, so longer ones are not tried",
                secs(after)
            );
            (Status::Unproven, seen)
        }
        (None, None) => (
            Status::Unproven,
            "could not be opened; run the doctor without --idle first".to_owned(),
        ),
    };
    Verdict {
        status,
        seen,
        fix: None,
    }
}
