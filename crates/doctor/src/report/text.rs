//! For terminals: one line a row, and below it what to do where something is wrong.

use crate::judge::Status;
use crate::plan::Skipped;

use super::Outcome;

/// One outcome: a line, and up to two more that say whom to ask for what.
pub fn line(outcome: &Outcome) -> String {
    let verdict = &outcome.verdict;
    let mark = match verdict.status {
        status if status.is_bad() => "NOT OK",
        Status::Open => "ok",
        _ => "?",
    };
    let place = outcome.check.place();
    let mut text = format!(
        "{mark:<7} {:<16} {place:<36} {}: {}\n",
        outcome.check.id,
        verdict.status.as_str(),
        verdict.seen
    );
    if let Some(fix) = &verdict.fix {
        text.push_str(&format!("        ask {}: {}\n", fix.ask, fix.what));
        if let Some(rule) = &fix.rule {
            text.push_str(&format!("        rule: {rule}\n"));
        }
    }
    text
}

/// All outcomes in order, rows that were left out, and a sum.
pub fn text(outcomes: &[Outcome], skipped: &[Skipped]) -> String {
    let mut text: String = outcomes.iter().map(line).collect();
    for it in skipped {
        text.push_str(&format!("-       {:<16} {}\n", it.id, it.reason));
    }
    let count = |fits: &dyn Fn(Status) -> bool| {
        outcomes.iter().filter(|it| fits(it.verdict.status)).count()
    };
    let (open, wrong) = (count(&|it| it == Status::Open), count(&Status::is_bad));
    let unproven = outcomes.len() - open - wrong;
    text.push_str(&format!(
        "{open} ok, {wrong} not ok, {unproven} without proof, {} not tried\n",
        skipped.len()
    ));
    text
}
