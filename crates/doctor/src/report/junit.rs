//! JUnit XML, which CI systems show.

use crate::judge::Status;
use crate::plan::Skipped;

use super::Outcome;

/// The outcomes as one test suite, a test case each.
pub fn junit(outcomes: &[Outcome], skipped: &[Skipped]) -> String {
    let failures = outcomes
        .iter()
        .filter(|it| it.verdict.status.is_bad())
        .count();
    let unproven = |it: &&Outcome| it.verdict.status == Status::Unproven;
    let left_out = skipped.len() + outcomes.iter().filter(unproven).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"sallyport doctor\" \
         tests=\"{}\" failures=\"{failures}\" skipped=\"{left_out}\">\n",
        outcomes.len() + skipped.len()
    );
    for it in outcomes {
        let name = escape(&format!("{} {}", it.check.id, it.check.place()));
        let secs = format!("{}.{:03}", it.took_ms / 1000, it.took_ms % 1000);
        let seen = escape(&it.verdict.seen);
        text.push_str(&format!(
            "  <testcase classname=\"doctor\" name=\"{name}\" time=\"{secs}\""
        ));
        if it.verdict.status.is_bad() {
            let fix = it.verdict.fix.as_ref().map(|fix| {
                let rule = fix.rule.as_deref().unwrap_or_default();
                escape(&format!("ask {}: {}\n{rule}", fix.ask, fix.what))
            });
            text.push_str(&format!(
                ">\n    <failure type=\"{}\" message=\"{seen}\">{}</failure>\n  </testcase>\n",
                it.verdict.status.as_str(),
                fix.unwrap_or_default()
            ));
        } else if it.verdict.status == Status::Unproven {
            text.push_str(&format!(
                ">\n    <skipped message=\"{seen}\"/>\n  </testcase>\n"
            ));
        } else {
            text.push_str("/>\n");
        }
    }
    for it in skipped {
        let (id, reason) = (escape(&it.id), escape(&it.reason));
        text.push_str(&format!(
            "  <testcase classname=\"doctor\" name=\"{id}\" time=\"0\">\n    \
             <skipped message=\"{reason}\"/>\n  </testcase>\n"
        ));
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
