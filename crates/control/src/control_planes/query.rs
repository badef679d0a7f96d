//! Which control planes a list shows: filters, labels, order, page.

use sallyport_store::ControlPlane;
use uuid::Uuid;

/// Every argument of a list.
pub(super) const ARGUMENTS: [&str; 13] = [
    "page[size]",
    "page[number]",
    "sort",
    "labels",
    "filter[id][eq]",
    "filter[id][oeq]",
    "filter[name][eq]",
    "filter[name][contains]",
    "filter[name][neq]",
    "filter[cluster_type][eq]",
    "filter[cluster_type][oeq]",
    "filter[cluster_type][neq]",
    "filter[cloud_gateway]",
];

/// The parsed query of a list.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Page, from 1.
    pub(super) number: usize,
    /// Control planes per page.
    pub(super) size: usize,
    filters: Vec<Filter>,
    newest_first: bool,
}

#[derive(Debug)]
enum Filter {
    Id(Vec<String>),
    Name(String),
    NameContains(String),
    NotName(String),
    ClusterType(Vec<String>),
    NotClusterType(String),
    CloudGateway(bool),
    Label(String, Option<String>),
}

impl Selection {
    /// Reads a query; an error names the argument and says what is wrong.
    pub(super) fn parse(query: &[(String, String)]) -> Result<Selection, (String, String)> {
        let mut selection = Selection {
            number: 1,
            size: 100,
            ..Selection::default()
        };
        for (argument, value) in query {
            selection
                .take(argument, value)
                .map_err(|reason| (argument.clone(), reason))?;
        }
        Ok(selection)
    }

    fn take(&mut self, argument: &str, value: &str) -> Result<(), String> {
        let list = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
        let filter = match argument {
            "page[number]" => {
                self.number = bounded(value, usize::MAX)?;
                return Ok(());
            }
            "page[size]" => {
                self.size = bounded(value, 1000)?;
                return Ok(());
            }
            "sort" => {
                self.newest_first = match value {
                    "created_at" | "created_at asc" => false,
                    "created_at desc" => true,
                    _ => return Err("must be created_at or created_at desc".to_owned()),
                };
                return Ok(());
            }
            "labels" => {
                self.filters
                    .extend(list().iter().map(|label| match label.split_once(':') {
                        Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
                        None => Filter::Label(label.clone(), None),
                    }));
                return Ok(());
            }
            "filter[id][eq]" => Filter::Id(vec![value.to_owned()]),
            "filter[id][oeq]" => Filter::Id(list()),
            "filter[name]" | "filter[name][eq]" => Filter::Name(value.to_owned()),
            "filter[name][contains]" => Filter::NameContains(value.to_owned()),
            "filter[name][neq]" => Filter::NotName(value.to_owned()),
            "filter[cluster_type][eq]" => Filter::ClusterType(vec![value.to_owned()]),
            "filter[cluster_type][oeq]" => Filter::ClusterType(list()),
            "filter[cluster_type][neq]" => Filter::NotClusterType(value.to_owned()),
            "filter[cloud_gateway]" => Filter::CloudGateway(
                value
                    .parse()
                    .map_err(|_| "must be true or false".to_owned())?,
            ),
            _ => return Err("is not a known argument".to_owned()),
        };
        self.filters.push(filter);
        Ok(())
    }

    /// The page of `all` (oldest first) and the number of control planes on all pages.
    pub(super) fn apply(&self, all: Vec<ControlPlane>) -> (Vec<ControlPlane>, usize) {
        let mut found: Vec<ControlPlane> = all
            .into_iter()
            .filter(|cp| self.filters.iter().all(|filter| filter.matches(cp)))
            .collect();
        if self.newest_first {
            found.reverse();
        }
        let total = found.len();
        let skip = (self.number - 1).saturating_mul(self.size);
        (
            found.into_iter().skip(skip).take(self.size).collect(),
            total,
        )
    }
}

impl Filter {
    fn matches(&self, cp: &ControlPlane) -> bool {
        let cluster_type = serde_json::to_value(cp.cluster_type).unwrap_or_default();
        let cluster_type = cluster_type.as_str().unwrap_or_default();
        match self {
            Filter::Id(ids) => ids
                .iter()
                .any(|id| Uuid::try_parse(id).is_ok_and(|id| id == cp.id)),
            Filter::Name(name) => cp.name == *name,
            Filter::NameContains(part) => cp.name.contains(part.as_str()),
            Filter::NotName(name) => cp.name != *name,
            Filter::ClusterType(types) => types.iter().any(|other| other == cluster_type),
            Filter::NotClusterType(other) => other != cluster_type,
            Filter::CloudGateway(wanted) => cp.cloud_gateway == *wanted,
            Filter::Label(key, value) => match (cp.labels.get(key), value) {
                (Some(has), Some(wanted)) => has == wanted,
                (has, None) => has.is_some(),
                (None, Some(_)) => false,
            },
        }
    }
}

fn bounded(text: &str, max: usize) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| match max {
        usize::MAX => "must be a number from 1".to_owned(),
        max => format!("must be a number from 1 to {max}"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn all() -> Vec<ControlPlane> {
        let make = |number: u8, name: &str, label: &str| ControlPlane {
            id: Uuid::from_u128(u128::from(number)),
            name: name.to_owned(),
            description: String::new(),
            labels: BTreeMap::from([("env".to_owned(), label.to_owned())]),
            prefix: format!("{number:010}"),
            cluster_type: Default::default(),
            auth_type: Default::default(),
            cloud_gateway: number == 2,
            proxy_urls: Vec::new(),
            created_at_ms: i64::from(number),
            updated_at_ms: i64::from(number),
        };
        vec![
            make(1, "alpha", "dev"),
            make(2, "beta", "prod"),
            make(3, "alphabet", "prod"),
        ]
    }

    #[track_caller]
    fn check(query: &[(&str, &str)], expected: Result<&[&str], &str>) {
        let query: Vec<(String, String)> = query
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let got = Selection::parse(&query).map(|selection| selection.apply(all()).0);
        let names = got.map(|found| found.into_iter().map(|cp| cp.name).collect::<Vec<_>>());
        match (names, expected) {
            (Ok(names), Ok(expected)) => assert_eq!(names, expected),
            (Err((argument, _)), Err(expected)) => assert_eq!(argument, expected),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn filters_join_with_and() {
        check(&[], Ok(&["alpha", "beta", "alphabet"]));
        check(&[("filter[name][eq]", "alpha")], Ok(&["alpha"]));
        check(
            &[("filter[name][contains]", "alpha")],
            Ok(&["alpha", "alphabet"]),
        );
        check(&[("filter[name][neq]", "alpha")], Ok(&["beta", "alphabet"]));
        let id = Uuid::from_u128(2).to_string();
        check(&[("filter[id][oeq]", &format!("{id},x"))], Ok(&["beta"]));
        check(&[("filter[cloud_gateway]", "true")], Ok(&["beta"]));
        check(&[("labels", "env:prod")], Ok(&["beta", "alphabet"]));
        check(
            &[("labels", "env"), ("filter[name][contains]", "b")],
            Ok(&["beta", "alphabet"]),
        );
        check(&[("labels", "none")], Ok(&[]));
        check(
            &[("filter[cluster_type][neq]", "CLUSTER_TYPE_CONTROL_PLANE")],
            Ok(&[]),
        );
        check(
            &[("sort", "created_at desc")],
            Ok(&["alphabet", "beta", "alpha"]),
        );
        check(
            &[("page[size]", "2"), ("page[number]", "2")],
            Ok(&["alphabet"]),
        );
        check(&[("page[number]", "9")], Ok(&[]));
    }

    #[test]
    fn bad_arguments_are_named() {
        check(&[("page[size]", "0")], Err("page[size]"));
        check(&[("page[number]", "x")], Err("page[number]"));
        check(&[("sort", "name")], Err("sort"));
        check(
            &[("filter[cloud_gateway]", "maybe")],
            Err("filter[cloud_gateway]"),
        );
        check(&[("filter[nmae][eq]", "x")], Err("filter[nmae][eq]"));
    }
}
