//! `sallyport node list`.

use sallyport_appliance::node::{NodeStatus, Settings, Status};

pub(super) fn run(settings: &Settings, output: &str) -> anyhow::Result<()> {
    let status = super::get(settings, "/status")?;
    if output == "json" {
        return crate::commands::print(&serde_json::to_string_pretty(&status)?);
    }
    crate::commands::print(&table(&serde_json::from_value(status)?))
}

/// The nodes as a table, and what is wrong below it.
fn table(status: &Status) -> String {
    let mut rows =
        vec![["NODE", "ROLE", "STATE", "SERVES", "ADDRESS", "VERSION"].map(str::to_owned)];
    rows.extend(status.nodes.iter().map(row));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths);
        let text: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.join("  ").trim_end().to_owned()
    };
    let mut text: Vec<String> = rows.iter().map(line).collect();
    let seen = status.nodes.iter().filter(|it| it.live).count();
    if !status.majority {
        text.push(format!(
            "\n{} sees {seen} of {} nodes, not more than half: it does not lead",
            status.node,
            status.nodes.len()
        ));
    } else if status.leader.is_none() {
        text.push("\nno node leads: what is wanted of nodes waits".to_owned());
    }
    if !status.database {
        text.push(format!("\n{} does not reach the database", status.node));
    }
    text.join("\n")
}

fn row(node: &NodeStatus) -> [String; 6] {
    let state = match &node.state {
        None => "gone".to_owned(),
        Some(state) if *state == node.wanted => state.clone(),
        Some(state) => format!("{state}, wanted {}", node.wanted),
    };
    let name = match node.leader {
        true => format!("{} (leads)", node.name),
        false => node.name.clone(),
    };
    let serves = match node.serving {
        Some(_) if node.role == "witness" => "-",
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    let version = node.version.clone().unwrap_or_default();
    [
        name,
        node.role.clone(),
        state,
        serves.to_owned(),
        node.address.clone(),
        version,
    ]
}
