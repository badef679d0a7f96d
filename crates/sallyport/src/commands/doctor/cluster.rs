//! `sallyport doctor --cluster`: every node tries every other one.

use std::path::Path;

use anyhow::bail;
use serde_json::Value;

use crate::commands::described::answer;
use crate::commands::node;

/// Asks the node that runs on this machine; `from` picks one node that shall try.
pub(super) fn run(config: &Path, from: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let told = node::doctor(config, from)?;
    let matrix = told["matrix"].as_array().cloned().unwrap_or_default();
    if as_json {
        answer(&format!("{}\n", serde_json::to_string_pretty(&told)?))?;
    } else {
        answer(&text(&matrix))?;
    }
    let bad = matrix.iter().filter(|it| it["ok"] != true).count();
    match bad {
        0 => Ok(()),
        bad => bail!(
            "{bad} of {} nodes have connections that are not ok",
            matrix.len()
        ),
    }
}

/// A table of nodes, and below it what is wrong.
fn text(matrix: &[Value]) -> String {
    let mut to: Vec<&str> = matrix
        .iter()
        .flat_map(|it| it["rows"].as_array().into_iter().flatten())
        .filter_map(|row| row["node"].as_str())
        .collect();
    to.extend(matrix.iter().filter_map(|it| it["from"].as_str()));
    to.sort_unstable();
    to.dedup();
    let width = to.iter().map(|it| it.len()).max().unwrap_or(0).max(6);
    let mut out = format!("{:width$}", "from");
    for name in &to {
        out.push_str(&format!("  {name:width$}"));
    }
    let mut wrong = String::new();
    for line in matrix {
        let from = line["from"].as_str().unwrap_or_default();
        out.push_str(&format!("\n{from:width$}"));
        let rows = line["rows"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        for name in &to {
            let mut those = rows.iter().filter(|row| row["node"] == *name).peekable();
            let cell = match (those.peek().is_some(), *name == from) {
                (_, true) => "-",
                (false, _) => "?",
                (true, _) if those.all(|row| row["ok"] == true) => "ok",
                (true, _) => "NOT OK",
            };
            out.push_str(&format!("  {cell:width$}"));
        }
        if let Some(error) = line["error"].as_str() {
            wrong.push_str(&format!("{from}: could not be asked: {error}\n"));
        }
        for row in rows.iter().filter(|row| row["ok"] != true) {
            let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            wrong.push_str(&format!(
                "{from} to {}: {} {}: {}: {}\n",
                word("node"),
                word("id"),
                word("flow"),
                word("status"),
                word("seen")
            ));
            if let Some(rule) = row["fix"]["rule"].as_str() {
                wrong.push_str(&format!("        rule: {rule}\n"));
            }
        }
    }
    let lines = out
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n");
    format!("{lines}\n{wrong}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text;

    #[test]
    fn a_matrix_has_a_cell_for_each_pair_and_names_what_is_wrong() {
        let row = |node: &str, id: &str, ok: bool| {
            json!({"node": node, "id": id, "flow": "7777/tcp", "ok": ok, "status": "filtered",
                   "seen": "no answer", "fix": {"rule": "allow out tcp"}})
        };
        let matrix = [
            json!({"from": "n1", "ok": false,
                   "rows": [row("n2", "node_control", true), row("n2", "healthcheck.icmp", false)]}),
            json!({"from": "n2", "ok": false, "error": "it is gone"}),
        ];
        let expected = "from    n1      n2\nn1      -       NOT OK\nn2      ?       -\n\
                        n1 to n2: healthcheck.icmp 7777/tcp: filtered: no answer\n        \
                        rule: allow out tcp\nn2: could not be asked: it is gone\n";
        assert_eq!(text(&matrix), expected);
    }
}
