//! What a port, id or host name is for.

use crate::catalogue::Catalogue;
use crate::entry::{Entry, Owner, Role, Tls};
use crate::port::Transport;
use crate::render;

/// The entries that `query` means: an id, a slug, a port (`8721`, `8071/udp`), `icmp`, or a host name
/// below `base`. Empty if nothing fits.
pub fn find<'a>(catalogue: &'a Catalogue, base: &str, query: &str) -> Vec<&'a Entry> {
    let query = query.trim();
    let by = |fits: &dyn Fn(&Entry) -> bool| -> Vec<&'a Entry> {
        catalogue
            .entries
            .iter()
            .filter(|entry| fits(entry))
            .collect()
    };
    let (port, transport) = match query.split_once('/') {
        Some((port, "tcp")) => (port, Some(Transport::Tcp)),
        Some((port, "udp")) => (port, Some(Transport::Udp)),
        _ => (query, None),
    };
    if let Ok(port) = port.parse::<u16>() {
        return by(&|entry| {
            let fits = |have: Transport| transport.is_none_or(|want| want == have);
            entry
                .ports
                .iter()
                .any(|it| it.port.get() == port && fits(it.transport))
        });
    }
    if query.eq_ignore_ascii_case("icmp") {
        return by(&|entry| entry.icmp);
    }
    let exact = by(&|entry| entry.id == *query);
    if !exact.is_empty() {
        return exact;
    }
    let slug = by(&|entry| entry.id.slug() == query);
    if !slug.is_empty() {
        return slug;
    }
    let Some(found) = catalogue.match_host(base, query) else {
        return Vec::new();
    };
    let first = found.entry;
    by(&|entry| entry.id == first.id || entry.shares.contains(&first.id))
}

/// A few lines that say everything about `entry`.
pub fn explain(entry: &Entry) -> String {
    let roles = |roles: &[Role]| {
        roles
            .iter()
            .map(|role| role.as_str().replace('_', " "))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut text = format!("{}: {}\n", entry.id, entry.title);
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("  {name:<9} {value}\n"));
    };
    line("why", &entry.why);
    line(
        "who",
        &format!("{} → {}", roles(&entry.from), roles(&entry.to)),
    );
    line("port", &render::ports(&entry.flows()));
    let hosts: Vec<String> = entry.hosts.iter().map(ToString::to_string).collect();
    if !hosts.is_empty() {
        line("host", &hosts.join(", "));
    }
    let aliases: Vec<String> = entry.aliases.iter().map(ToString::to_string).collect();
    if !aliases.is_empty() {
        line("also", &aliases.join(", "));
    }
    let addresses: Vec<String> = entry.addresses.iter().map(ToString::to_string).collect();
    if !addresses.is_empty() {
        line("address", &addresses.join(", "));
    }
    if let Some(peer) = &entry.peer {
        line("far end", peer);
    }
    let encryption = match (entry.tls, &entry.certificate) {
        (Tls::None, _) => "none".to_owned(),
        (Tls::Optional, _) => "optional, by setting of the far end or by transport".to_owned(),
        (Tls::Tls, _) => "yes; the accepting end shows a certificate".to_owned(),
        (Tls::Mtls, certificate) => {
            let whose = certificate.as_deref().unwrap_or("a client certificate");
            format!("yes, on both ends: {whose}")
        }
    };
    line("protocol", &entry.protocol);
    line("TLS", &encryption);
    let required = match (entry.required, &entry.when) {
        (true, None) => "yes".to_owned(),
        (true, Some(when)) => format!("yes, if {when}"),
        (false, Some(when)) => format!("no; wanted if {when}"),
        (false, None) => "no".to_owned(),
    };
    line("required", &required);
    let owner = match entry.owner {
        Owner::Installation => "this installation",
        Owner::Site => "your organisation",
        Owner::Vendor => "the vendor",
        Owner::ThirdParty => "somebody else",
    };
    line("run by", owner);
    match &entry.setting {
        Some(setting) => line("setting", setting),
        None if entry.icmp => {}
        None => line("setting", "none: the port is fixed"),
    }
    if entry.loopback {
        line("bound to", "loopback, unless the setting says otherwise");
    }
    line("source", &entry.source.join("; "));
    text
}
