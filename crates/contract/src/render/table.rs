//! A table for terminals, at most 100 columns wide.

use crate::entry::{Role, Tls};
use crate::row::Row;

use super::{need, places, ports};

/// Widest that a column may become; longer cells wrap at spaces, names at dots.
const WIDTHS: [usize; 6] = [21, 13, 4, 4, 18, 30];
const GAP: usize = 2;
const COLUMNS: usize = 100;

/// The rows as an aligned table with a heading, and one line that says how to read it.
pub fn table(rows: &[Row<'_>]) -> String {
    let head = ["ID", "PORT", "TLS", "NEED", "WHO → WHOM", "HOST OR PEER"].map(str::to_owned);
    let mut cells = vec![head];
    cells.extend(rows.iter().map(|row| {
        let entry = row.entry;
        [
            entry.id.to_string(),
            ports(&row.flows),
            tls(entry.tls).to_owned(),
            need(entry).to_owned(),
            format!("{} → {}", roles(&row.from), roles(&row.to)),
            places(row).join(" "),
        ]
    }));
    let wrap_at = |widths: &[usize; 6]| -> Vec<[Vec<String>; 6]> {
        cells
            .iter()
            .map(|row| std::array::from_fn(|at| wrap(&row[at], widths[at])))
            .collect()
    };
    let used = |wrapped: &[[Vec<String>; 6]]| -> [usize; 6] {
        let lines = |at: usize| wrapped.iter().flat_map(move |row| row[at].iter());
        std::array::from_fn(|at| {
            lines(at)
                .map(|line| line.chars().count())
                .max()
                .unwrap_or(0)
        })
    };
    // What the other columns leave over goes to the last one.
    let mut widths = used(&wrap_at(&WIDTHS));
    widths[5] = COLUMNS - widths[..5].iter().map(|width| width + GAP).sum::<usize>();
    let wrapped = wrap_at(&widths);
    let mut text = String::new();
    for row in &wrapped {
        for line in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
            let mut out = String::new();
            for (at, cell) in row.iter().enumerate() {
                let part = cell.get(line).map_or("", String::as_str);
                let pad = (widths[at] + GAP).saturating_sub(part.chars().count());
                out.push_str(part);
                out.extend(std::iter::repeat_n(' ', pad));
            }
            text.push_str(out.trim_end());
            text.push('\n');
        }
    }
    text.push_str(
        "need: when = required under a condition, no = optional; tls: may = by setting.\n",
    );
    text
}

fn tls(mode: Tls) -> &'static str {
    match mode {
        Tls::None => "-",
        Tls::Optional => "may",
        Tls::Tls => "tls",
        Tls::Mtls => "mtls",
    }
}

fn roles(roles: &[Role]) -> String {
    let short = roles.iter().map(|role| match role {
        Role::ControlPlane => "control",
        Role::IngressController => "ingress",
        Role::MeshZone => "mesh",
        Role::Appliance => "node",
        Role::JumpHost => "jump-host",
        Role::ForwardProxy => "fwd-proxy",
        other => other.as_str(),
    });
    short.collect::<Vec<_>>().join(", ")
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.len() <= width {
            if let Some(line) = lines.last_mut() {
                line.push(' ');
                line.extend(word);
            }
            continue;
        }
        if last > 0 {
            lines.push(String::new());
        }
        while word.len() > width {
            let dot = word[..width]
                .iter()
                .rposition(|&c| c == '.')
                .filter(|&at| at > 0);
            let rest = word.split_off(dot.unwrap_or(width));
            if let Some(line) = lines.last_mut() {
                line.extend(word);
            }
            lines.push(String::new());
            word = rest;
        }
        if let Some(line) = lines.last_mut() {
            line.extend(word);
        }
    }
    lines
}
