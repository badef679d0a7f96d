//! `re-ip`: other addresses for the names of nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use sallyport_wire::appliance_cli::Reply;

use super::{Entry, Site, entry};

pub(super) fn entry_of(site: &Arc<Site>) -> Entry {
    let site = Arc::clone(site);
    entry(
        "re-ip",
        "gives names of nodes other addresses in the node's hosts file",
        &[("addresses", "NAME:ADDRESS[,NAME:ADDRESS…]")],
        move |call| {
            let path = site.hosts.clone();
            Box::pin(async move {
                let wanted = match parse(call.get("addresses").unwrap_or_default()) {
                    Ok(wanted) => wanted,
                    Err(reason) => return Reply::refused("bad_arguments", reason),
                };
                let changed = tokio::task::spawn_blocking(move || change(&path, &wanted)).await;
                match changed {
                    Ok(Ok(reply)) => reply,
                    Ok(Err(error)) => Reply::refused("failed", error),
                    Err(error) => Reply::refused("failed", error.to_string()),
                }
            })
        },
    )
}

fn change(path: &Path, wanted: &BTreeMap<String, IpAddr>) -> Result<Reply, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let before = std::fs::read_to_string(path).map_err(failed)?;
    let after = rewritten(&before, wanted);
    if after == before {
        return Ok(Reply::new("nothing to change"));
    }
    // In place: the file may be one that a container has mounted, which cannot be replaced.
    std::fs::write(path, after).map_err(failed)?;
    let names: Vec<String> = wanted.iter().map(|(a, b)| format!("{a} is {b}")).collect();
    Ok(Reply::new(format!(
        "{}: {}",
        path.display(),
        names.join(", ")
    )))
}

/// Reads `name:address,…`; an IPv6 address stands in brackets or without.
fn parse(text: &str) -> Result<BTreeMap<String, IpAddr>, String> {
    let mut wanted = BTreeMap::new();
    for part in text.split(',') {
        let bad = || format!("{part:?} is not NAME:ADDRESS");
        let (name, address) = part.split_once(':').ok_or_else(bad)?;
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let is_name = !name.is_empty() && name.chars().all(known) && !name.starts_with('-');
        let address = address
            .trim_matches(['[', ']'])
            .parse()
            .map_err(|_| bad())?;
        if !is_name {
            return Err(bad());
        }
        if wanted.insert(name.to_owned(), address).is_some() {
            return Err(format!("{name} is named twice"));
        }
    }
    Ok(wanted)
}

/// The hosts file in which these names, and no others, have these addresses; other lines stay as
/// they are, byte for byte.
fn rewritten(before: &str, wanted: &BTreeMap<String, IpAddr>) -> String {
    let mut after = String::with_capacity(before.len());
    for line in before.split_inclusive('\n') {
        let (entry, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        let mut words = entry.split_whitespace();
        let address = words.next();
        let names: Vec<&str> = words.collect();
        let stays: Vec<&str> = names
            .iter()
            .copied()
            .filter(|it| !wanted.contains_key(*it))
            .collect();
        if stays.len() == names.len() {
            after.push_str(line);
        } else if !stays.is_empty() {
            after.push_str(address.unwrap_or_default());
            for name in stays {
                after.push(' ');
                after.push_str(name);
            }
            if comment.is_empty() {
                after.push('\n');
            } else {
                after.push(' ');
                after.push_str(comment);
            }
        }
    }
    if !after.is_empty() && !after.ends_with('\n') {
        after.push('\n');
    }
    for (name, address) in wanted {
        after.push_str(&format!("{address} {name}\n"));
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_lines_change() {
        let before = "127.0.0.1\tlocalhost\n# a comment with n1\n10.0.0.1 n1\n\n10.0.0.2 n2 db # both\n10.0.0.3 n3";
        let wanted = parse("n1:10.9.0.1,n2:fd00::2").unwrap();
        let after = rewritten(before, &wanted);
        assert_eq!(
            after,
            "127.0.0.1\tlocalhost\n# a comment with n1\n\n10.0.0.2 db # both\n10.0.0.3 n3\n\
             10.9.0.1 n1\nfd00::2 n2\n"
        );
        assert_eq!(
            rewritten(&after, &wanted),
            after,
            "a second time changes nothing"
        );
    }

    #[test]
    fn what_is_no_address_is_said() {
        assert_eq!(parse("a:1.2.3.4,b:[::1]").unwrap().len(), 2);
        for bad in [
            "",
            "a",
            "a:",
            ":1.2.3.4",
            "a:1.2.3",
            "a b:1.2.3.4",
            "a\n:1.2.3.4",
            "a:1.2.3.4,",
        ] {
            parse(bad).unwrap_err();
        }
        assert!(parse("a:1.2.3.4,a:1.2.3.5").unwrap_err().contains("twice"));
    }
}
