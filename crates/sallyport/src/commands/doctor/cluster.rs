//! `sallyport doctor --cluster`: every node tries every other one.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::bail;
use sallyport_doctor::report::{Case, CaseEnd, suite};
use serde_json::Value;

use crate::commands::described::answer;
use crate::commands::node;

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    Junit,
}

/// Asks the node that runs on this machine; `from` picks one node that shall try, `features` are in
/// use although no node shows it.
pub(super) fn run(
    config: &Path,
    from: Option<&str>,
    features: &BTreeSet<String>,
    form: Form,
) -> anyhow::Result<()> {
    let told = node::doctor(config, from, features)?;
    let matrix = told["matrix"].as_array().cloned().unwrap_or_default();
    answer(&match form {
        Form::Text => text(&matrix),
        Form::Json => format!("{}\n", serde_json::to_string_pretty(&told)?),
        Form::Junit => suite("sallyport doctor --cluster", &cases(&matrix)),
    })?;
    let bad = matrix.iter().filter(|it| it["ok"] != true).count();
    match bad {
        0 => Ok(()),
        bad => bail!(
            "{bad} of {} nodes have connections that are not ok",
            matrix.len()
        ),
    }
}

fn word<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

fn rows(line: &Value) -> &[Value] {
    let rows = line["rows"].as_array();
    rows.map(Vec::as_slice).unwrap_or_default()
}

/// What to do about a row, in one line and the rule that is missing.
fn fix(row: &Value) -> Option<(String, Option<&str>)> {
    let fix = row["fix"].as_object()?;
    let part = |key: &str| fix.get(key).and_then(Value::as_str);
    let what = format!(
        "ask {}: {}",
        part("ask").unwrap_or_default(),
        part("what").unwrap_or_default()
    );
    Some((what, part("rule")))
}

/// What one node found out about another, in a few words.
fn cell(from: &str, to: &str, rows: &[Value]) -> String {
    let mut bad = rows.iter().filter(|row| row["ok"] != true);
    match (rows.len(), bad.next(), bad.count()) {
        _ if from == to => "-".to_owned(),
        (0, ..) => "?".to_owned(),
        (_, None, _) => "ok".to_owned(),
        (_, Some(one), 0) => format!("{} {}", word(one, "flow"), word(one, "status")),
        (all, Some(_), more) => format!("{} of {all} not ok", more + 1),
    }
}

/// A table of nodes, and below it what is wrong, and what was tried.
fn text(matrix: &[Value]) -> String {
    let tried = matrix.iter().flat_map(rows);
    let mut to: Vec<&str> = tried.clone().map(|row| word(row, "node")).collect();
    to.extend(matrix.iter().map(|it| word(it, "from")));
    to.sort_unstable();
    to.dedup();
    let mut table = vec![vec!["from".to_owned()]];
    table[0].extend(to.iter().map(|it| (*it).to_owned()));
    let mut wrong = String::new();
    for line in matrix {
        let from = word(line, "from");
        let mut cells = vec![from.to_owned()];
        for name in &to {
            let those = rows(line).iter().filter(|row| row["node"] == *name);
            cells.push(cell(from, name, &those.cloned().collect::<Vec<_>>()));
        }
        table.push(cells);
        if let Some(error) = line["error"].as_str() {
            wrong.push_str(&format!("{from}: could not be asked: {error}\n"));
        }
        for row in rows(line).iter().filter(|row| row["ok"] != true) {
            let [node, id, flow] = ["node", "id", "flow"].map(|key| word(row, key));
            let [status, seen] = ["status", "seen"].map(|key| word(row, key));
            wrong.push_str(&format!(
                "{from} to {node}: {id} {flow}: {status}: {seen}\n"
            ));
            if let Some((what, rule)) = fix(row) {
                wrong.push_str(&format!("        {what}\n"));
                if let Some(rule) = rule {
                    wrong.push_str(&format!("        rule: {rule}\n"));
                }
            }
        }
    }
    let widths: Vec<usize> = (0..=to.len())
        .map(|at| table.iter().map(|row| row[at].chars().count()).max())
        .map(|width| width.unwrap_or(0).max(6))
        .collect();
    let mut out = String::new();
    for row in table {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells.map(|(it, width)| format!("{it:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out.push_str(&wrong);
    let kinds: BTreeSet<String> = tried
        .map(|row| format!("{} {}", word(row, "id"), word(row, "flow")))
        .collect();
    if !kinds.is_empty() {
        let kinds: Vec<String> = kinds.into_iter().collect();
        out.push_str(&format!("tried: {}\n", kinds.join(", ")));
    }
    out
}

/// A test case for each row, and for each node that could not be asked.
fn cases(matrix: &[Value]) -> Vec<Case> {
    let mut cases = Vec::new();
    for line in matrix {
        let from = word(line, "from");
        let mut case = |name: String, took_ms: u64, end: CaseEnd| {
            let class = format!("cluster.{from}");
            cases.push(Case {
                class,
                name,
                took_ms,
                end,
            });
        };
        if let Some(error) = line["error"].as_str() {
            let end = CaseEnd::Failed {
                status: "unasked".to_owned(),
                seen: format!("{from} could not be asked: {error}"),
                fix: String::new(),
            };
            case(format!("{from} is asked"), 0, end);
        }
        for row in rows(line) {
            let [node, id, flow] = ["node", "id", "flow"].map(|key| word(row, key));
            let [status, seen] = ["status", "seen"].map(|key| word(row, key).to_owned());
            let end = match (row["ok"] == true, status.as_str()) {
                (true, "unproven") => CaseEnd::Skipped(seen),
                (true, _) => CaseEnd::Passed,
                (false, _) => CaseEnd::Failed {
                    fix: fix(row)
                        .map(|(what, rule)| format!("{what}\n{}", rule.unwrap_or_default()))
                        .unwrap_or_default(),
                    status,
                    seen,
                },
            };
            let took_ms = row["took_ms"].as_u64().unwrap_or(0);
            case(format!("{from} to {node}: {id} {flow}"), took_ms, end);
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matrix() -> Vec<Value> {
        let row = |node: &str, id: &str, flow: &str, ok: bool| {
            let fix = json!({"ask": "them", "what": "let it through", "rule": "allow out tcp"});
            json!({"node": node, "id": id, "flow": flow, "ok": ok,
                   "status": if ok { "open" } else { "filtered" }, "took_ms": 1500,
                   "seen": "no answer", "fix": if ok { Value::Null } else { fix }})
        };
        vec![
            json!({"from": "n1", "ok": false, "rows": [
                row("n2", "node_control", "7777/tcp", true),
                row("n2", "healthcheck.icmp", "icmp", false),
                row("n3", "node_control", "7777/tcp", false),
                row("n3", "healthcheck.icmp", "icmp", false)]}),
            json!({"from": "n2", "ok": false, "error": "it is gone"}),
        ]
    }

    #[test]
    fn a_matrix_has_a_cell_for_each_pair_and_names_what_is_wrong() {
        let wrong = |to: &str, row: &str| {
            format!(
                "n1 to {to}: {row}: filtered: no answer\n        ask them: let it through\n        \
                 rule: allow out tcp\n"
            )
        };
        let expected = format!(
            "from    n1      n2             n3\n\
             n1      -       icmp filtered  2 of 2 not ok\n\
             n2      ?       -              ?\n\
             {}{}{}n2: could not be asked: it is gone\n\
             tried: healthcheck.icmp icmp, node_control 7777/tcp\n",
            wrong("n2", "healthcheck.icmp icmp"),
            wrong("n3", "node_control 7777/tcp"),
            wrong("n3", "healthcheck.icmp icmp"),
        );
        assert_eq!(text(&matrix()), expected);
    }

    #[test]
    fn junit_has_a_case_for_each_row() {
        let xml = suite("doctor", &cases(&matrix()));
        for part in [
            "tests=\"5\" failures=\"4\" skipped=\"0\"",
            "classname=\"cluster.n1\" name=\"n1 to n2: node_control 7777/tcp\" time=\"1.500\"/>",
            "<failure type=\"filtered\" message=\"no answer\">ask them: let it through&#10;allow out tcp<",
            "name=\"n2 is asked\" time=\"0.000\">\n    <failure type=\"unasked\"",
        ] {
            assert!(xml.contains(part), "{part} in {xml}");
        }
    }
}
