//! Tables after those that they refer to.

use super::Known;

/// Orders by references, and by name where these leave it open. A table may refer to itself.
pub(super) fn by_reference(mut tables: Vec<Known>) -> Vec<Known> {
    tables.sort_by(|a, b| a.table.name.cmp(&b.table.name));
    let mut ordered: Vec<Known> = Vec::with_capacity(tables.len());
    while !tables.is_empty() {
        let waits = |table: &Known| {
            let waits_for = |name: &String| {
                *name != table.table.name && tables.iter().any(|it| it.table.name == *name)
            };
            table.refers.iter().any(waits_for)
        };
        // A circle of references has no order; its first table goes first.
        let next = tables.iter().position(|it| !waits(it)).unwrap_or(0);
        ordered.push(tables.remove(next));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::super::Table;
    use super::*;

    fn table(name: &str, refers: &[&str]) -> Known {
        Known {
            table: Table {
                name: name.to_owned(),
                columns: Vec::new(),
            },
            key: Vec::new(),
            refers: refers.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_table_comes_after_what_it_refers_to() {
        let tables = vec![
            table("a", &["c", "a"]),
            table("b", &[]),
            table("c", &["d"]),
            table("d", &[]),
            table("x", &["y"]),
            table("y", &["x"]),
        ];
        let names: Vec<String> = by_reference(tables)
            .into_iter()
            .map(|it| it.table.name)
            .collect();
        assert_eq!(names, ["b", "d", "c", "a", "x", "y"]);
    }
}
