//! Comma-separated values (RFC 4180), for spreadsheets and ticket systems.

use crate::entry::Role;
use crate::row::Row;

use super::{places, ports};

/// The rows as CSV with a heading line; lists inside a cell are parted by spaces.
pub fn csv(rows: &[Row<'_>]) -> String {
    let mut text = String::from(
        "id,title,ports,from,to,host_or_peer,protocol,tls,required,when,owner,setting,why\r\n",
    );
    for row in rows {
        let entry = row.entry;
        let roles = |roles: &[Role]| {
            roles
                .iter()
                .map(|role| role.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let cells = [
            entry.id.to_string(),
            entry.title.clone(),
            ports(&row.flows),
            roles(&row.from),
            roles(&row.to),
            places(row).join(" "),
            entry.protocol.clone(),
            entry.tls.to_string(),
            if entry.required { "yes" } else { "no" }.to_owned(),
            entry.when.clone().unwrap_or_default(),
            entry.owner.to_string(),
            entry.setting.clone().unwrap_or_default(),
            entry.why.clone(),
        ];
        text.push_str(&cells.map(|cell| quoted(&cell)).join(","));
        text.push_str("\r\n");
    }
    text
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}
