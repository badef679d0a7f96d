//! JUnit XML, which CI systems show.

use crate::judge::{Fix, Status};
use crate::plan::Skipped;

use super::Outcome;

/// One test case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its class: what it belongs to.
    pub class: String,
    /// Its name.
    pub name: String,
    /// Milliseconds that it took.
    pub took_ms: u64,
    /// How it ended.
    pub end: CaseEnd,
}

/// How a test case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaseEnd {
    /// Well.
    Passed,
    /// Not well.
    Failed {
        /// The status in one word.
        status: String,
        /// What was seen.
        seen: String,
        /// What to do.
        fix: String,
    },
    /// Not proven, or not tried; why.
    Skipped(String),
}

/// The outcomes as one test suite, a test case each.
pub fn junit(outcomes: &[Outcome], skipped: &[Skipped]) -> String {
    let case = |name: String, took_ms: u64, end: CaseEnd| Case {
        class: "doctor".to_owned(),
        name,
        took_ms,
        end,
    };
    let tried = outcomes.iter().map(|it| {
        let end = match it.verdict.status {
            status if status.is_bad() => CaseEnd::Failed {
                status: status.as_str().to_owned(),
                seen: it.verdict.seen.clone(),
                fix: it.verdict.fix.as_ref().map(in_words).unwrap_or_default(),
            },
            Status::Unproven => CaseEnd::Skipped(it.verdict.seen.clone()),
            _ => CaseEnd::Passed,
        };
        let name = format!("{} {}", it.check.id, it.check.place());
        case(name, it.took_ms, end)
    });
    let left = skipped.iter();
    let left = left.map(|it| case(it.id.clone(), 0, CaseEnd::Skipped(it.reason.clone())));
    suite("sallyport doctor", &tried.chain(left).collect::<Vec<_>>())
}

/// What to do, in one or two lines.
fn in_words(fix: &Fix) -> String {
    let rule = fix.rule.as_deref().unwrap_or_default();
    format!("ask {}: {}\n{rule}", fix.ask, fix.what)
}

/// A test suite of this name.
pub fn suite(name: &str, cases: &[Case]) -> String {
    let count = |fits: fn(&CaseEnd) -> bool| cases.iter().filter(|it| fits(&it.end)).count();
    let failures = count(|it| matches!(it, CaseEnd::Failed { .. }));
    let left_out = count(|it| matches!(it, CaseEnd::Skipped(_)));
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" \
         tests=\"{}\" failures=\"{failures}\" skipped=\"{left_out}\">\n",
        escape(name),
        cases.len()
    );
    for it in cases {
        let (class, name) = (escape(&it.class), escape(&it.name));
        let secs = format!("{}.{:03}", it.took_ms / 1000, it.took_ms % 1000);
        text.push_str(&format!(
            "  <testcase classname=\"{class}\" name=\"{name}\" time=\"{secs}\""
        ));
        text.push_str(&match &it.end {
            CaseEnd::Passed => "/>\n".to_owned(),
            CaseEnd::Failed { status, seen, fix } => format!(
                ">\n    <failure type=\"{}\" message=\"{}\">{}</failure>\n  </testcase>\n",
                escape(status),
                escape(seen),
                escape(fix)
            ),
            CaseEnd::Skipped(why) => format!(
                ">\n    <skipped message=\"{}\"/>\n  </testcase>\n",
                escape(why)
            ),
        });
    }
    text.push_str("</testsuite>\n");
    text
}

fn escape(text: &str) -> String {
    let legal = text.chars().filter(|c| *c == '\n' || !c.is_control());
    let mut out = String::new();
    for c in legal {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c => out.push(c),
        }
    }
    out
}
