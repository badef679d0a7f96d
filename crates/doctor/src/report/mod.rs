//! Outcomes as text, JSON and JUnit.

mod junit;
mod text;

use serde::Serialize;
use serde_json::json;

use crate::check::Check;
use crate::judge::Verdict;
use crate::plan::Skipped;

pub use junit::{Case, CaseEnd, junit, suite};
pub use text::{line, text};

/// One check, tried and judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was tried.
    pub check: Check,
    /// The judgement.
    pub verdict: Verdict,
    /// Milliseconds that it took altogether.
    pub took_ms: u64,
    /// Issuer of the certificate shown, if it is not trusted.
    pub untrusted_issuer: Option<String>,
}

/// Version of the JSON shape: raised when a field changes its meaning or goes away.
pub const FORMAT_VERSION: u32 = 1;

#[derive(Serialize)]
struct JsonOutcome<'a> {
    id: &'a str,
    title: &'a str,
    target: String,
    flow: String,
    via: Option<String>,
    owner: sallyport_contract::Owner,
    ok: bool,
    #[serde(flatten)]
    verdict: &'a Verdict,
    took_ms: u64,
}

/// `{"format_version": 1, "ok", "rows": [..], "skipped": [..]}`, indented, with a newline at the end.
///
/// A row has `id`, `title`, `target`, `flow` (`443/tcp`, `icmp`), `via` (forward proxy or `null`),
/// `owner`, `ok`, `status`, `seen`, `fix` (`{"ask", "what", "rule"}` or `null`), `took_ms`; a skipped
/// row has `id`, `title`, `reason`.
pub fn json(outcomes: &[Outcome], skipped: &[Skipped]) -> String {
    let rows: Vec<JsonOutcome<'_>> = outcomes
        .iter()
        .map(|it| JsonOutcome {
            id: &it.check.id,
            title: &it.check.title,
            target: it.check.target.to_string(),
            flow: it.check.flow.to_string(),
            via: it.check.via.as_ref().map(ToString::to_string),
            owner: it.check.owner,
            ok: !it.verdict.status.is_bad(),
            verdict: &it.verdict,
            took_ms: it.took_ms,
        })
        .collect();
    let ok = rows.iter().all(|row| row.ok);
    let document =
        json!({"format_version": FORMAT_VERSION, "ok": ok, "rows": rows, "skipped": skipped});
    let mut text = serde_json::to_string_pretty(&document)
        .expect("strings, numbers and lists always become JSON");
    text.push('\n');
    text
}
