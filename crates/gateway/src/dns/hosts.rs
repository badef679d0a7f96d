//! The hosts file: names that need no server.

use std::net::IpAddr;

use ahash::AHashMap;

use crate::conf::RecordKind;

/// Names of a hosts file, in lower case, with their addresses.
#[derive(Debug, Default)]
pub(crate) struct Hosts(AHashMap<Box<str>, Vec<IpAddr>>);

impl Hosts {
    /// Reads the text of a hosts file. A line that is none is skipped, as everybody does.
    /// `localhost` is there even if the file does not say so.
    pub(crate) fn parse(text: &str) -> Hosts {
        let mut hosts = Hosts::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(Ok(ip)) = words.next().map(str::parse::<IpAddr>) else {
                continue;
            };
            for name in words {
                hosts.add(name, ip);
            }
        }
        if !hosts.0.contains_key("localhost") {
            hosts.add("localhost", [127, 0, 0, 1].into());
            hosts.add("localhost", IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
        }
        hosts
    }

    fn add(&mut self, name: &str, ip: IpAddr) {
        let known = self.0.entry(name.to_ascii_lowercase().into()).or_default();
        if !known.contains(&ip) {
            known.push(ip);
        }
    }

    /// The addresses of a name, of the first of these kinds that it has any of.
    pub(crate) fn find(&self, name: &str, order: &[RecordKind]) -> Option<Vec<IpAddr>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let known = self.0.get(name.to_ascii_lowercase().as_str())?;
        let of_kind = |kind: &RecordKind| {
            let found: Vec<_> = known
                .iter()
                .copied()
                .filter(|ip| match kind {
                    RecordKind::A => ip.is_ipv4(),
                    RecordKind::Aaaa => ip.is_ipv6(),
                    RecordKind::Srv | RecordKind::Cname => false,
                })
                .collect();
            (!found.is_empty()).then_some(found)
        };
        order.iter().find_map(of_kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecordKind::{A, Aaaa, Srv};

    #[track_caller]
    fn check(name: &str, order: &[RecordKind], expected: &[&str]) {
        let text = "# comment\n10.0.0.1 a.test A2.test # more\n\
             fe80::1 a.test\n10.0.0.2\ta.test\nrubbish here\n10.0.0.9\n";
        let found = Hosts::parse(text).find(name, order).unwrap_or_default();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn names_have_addresses_of_the_kind_asked_for() {
        check("a.test", &[Srv, A], &["10.0.0.1", "10.0.0.2"]);
        check("A.TEST.", &[Aaaa, A], &["fe80::1"]);
        check("a2.test", &[A], &["10.0.0.1"]);
        check("a2.test", &[Aaaa], &[]);
        check("b.test", &[A, Aaaa], &[]);
        check("localhost", &[A], &["127.0.0.1"]);
        check("localhost", &[Aaaa], &["::1"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,200}") {
            let _ = Hosts::parse(&text).find("x", &[A]);
        }
    }
}
