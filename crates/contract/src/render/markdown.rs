//! A Markdown table, for documents and tickets.

use crate::entry::Role;
use crate::row::Row;

use super::{places, ports};

/// The rows as a Markdown table with every fact that a firewall ticket needs.
pub fn markdown(rows: &[Row<'_>]) -> String {
    let mut text = String::from(
        "| Id | Port | Protocol | TLS | From | To | Host or peer | Required | Notes |\n\
         |:---|:-----|:---------|:----|:-----|:---|:-------------|:---------|:------|\n",
    );
    for row in rows {
        let entry = row.entry;
        let roles = |roles: &[Role]| {
            roles
                .iter()
                .map(|role| role.as_str().replace('_', " "))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let quoted = |place: String| {
            if row.hosts.is_empty() {
                escape(&place)
            } else {
                format!("`{place}`")
            }
        };
        let required = match (entry.required, &entry.when) {
            (true, None) => "Yes".to_owned(),
            (true, Some(when)) => format!("Yes, if {when}"),
            (false, Some(when)) => format!("No; wanted if {when}"),
            (false, None) => "No".to_owned(),
        };
        let cells = [
            format!("`{}`", entry.id),
            ports(&row.flows),
            entry.protocol.clone(),
            entry.tls.to_string(),
            roles(&row.from),
            roles(&row.to),
            places(row)
                .into_iter()
                .map(quoted)
                .collect::<Vec<_>>()
                .join("<br>"),
            escape(&required),
            escape(&entry.why),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// Text that stays inside its cell and is not taken for HTML.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\n', " ")
}
