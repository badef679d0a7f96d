//! Rules between the fields of a row and between rows: complete and unambiguous.

use std::collections::BTreeSet;
use std::fmt;

use crate::catalogue::Catalogue;
use crate::entry::{Entry, Owner, Role, Tls};

/// Something that a catalogue says twice, not at all, or against itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintFinding {
    /// The entry, or `None` for the catalogue as a whole.
    pub entry: Option<String>,
    /// The field to look at.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for LintFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.entry {
            Some(entry) => write!(f, "entry {entry}, field {}: {}", self.field, self.message),
            None => write!(f, "field {}: {}", self.field, self.message),
        }
    }
}

/// Checks a catalogue; an empty answer means complete and unambiguous.
///
/// Findings come in the order of the entries.
pub fn lint(catalogue: &Catalogue) -> Vec<LintFinding> {
    let mut found = Findings(Vec::new());
    if catalogue.name.is_empty() || catalogue.title.is_empty() {
        found.add(None, "name", "name and title must not be empty");
    }
    if catalogue.entries.is_empty() {
        found.add(None, "entry", "a catalogue without entries says nothing");
    }
    let mut features: BTreeSet<&str> = catalogue.features.keys().map(String::as_str).collect();
    let mut ids = BTreeSet::new();
    for (at, entry) in catalogue.entries.iter().enumerate() {
        if !ids.insert(entry.id.as_str()) {
            found.add(
                Some(entry),
                "id",
                "used by an earlier entry; ids are unique",
            );
        }
        lint_entry(catalogue, entry, &mut found);
        if let Some(feature) = &entry.feature {
            features.remove(feature.as_str());
        }
        for earlier in &catalogue.entries[..at] {
            lint_pair(catalogue, earlier, entry, &mut found);
        }
    }
    for feature in features {
        found.add(
            None,
            "features",
            &format!("no entry has the feature `{feature}`; drop it"),
        );
    }
    found.0
}

struct Findings(Vec<LintFinding>);

impl Findings {
    fn add(&mut self, entry: Option<&Entry>, field: &'static str, message: &str) {
        let entry = entry.map(|entry| entry.id.to_string());
        self.0.push(LintFinding {
            entry,
            field,
            message: message.to_owned(),
        });
    }
}

/// Longest id: firewall dialects put ids into names of at most 63 characters.
const ID_BYTES_MAX: usize = 40;

fn lint_entry(catalogue: &Catalogue, entry: &Entry, found: &mut Findings) {
    let mut add = |field, message: &str| found.add(Some(entry), field, message);
    if entry.id.as_str().len() > ID_BYTES_MAX {
        add("id", &format!("longer than {ID_BYTES_MAX} characters"));
    }
    for (field, text) in [
        ("title", &entry.title),
        ("why", &entry.why),
        ("protocol", &entry.protocol),
    ] {
        if text.trim().is_empty() {
            add(field, "must not be empty");
        }
    }
    if entry.ports.is_empty() && !entry.icmp {
        add(
            "ports",
            "neither a port nor icmp: nothing could be allowed for this row",
        );
    }
    if has_twice(&entry.ports) {
        add("ports", "the same port twice");
    }
    if entry.from.is_empty() || entry.to.is_empty() {
        add(
            "from",
            "a row needs at least one role on each side (from, to)",
        );
    }
    if has_twice(&entry.from) || has_twice(&entry.to) {
        add("from", "the same role twice on one side (from, to)");
    }
    if entry.source.is_empty() || entry.source.iter().any(|source| source.trim().is_empty()) {
        add("source", "say where the row comes from");
    }
    match (entry.tls, &entry.certificate) {
        (Tls::Mtls, None) => add(
            "certificate",
            "an mtls row names the initiator's certificate",
        ),
        (Tls::None | Tls::Tls, Some(_)) => {
            add(
                "certificate",
                "only mtls and optional rows have a client certificate",
            );
        }
        _ => {}
    }
    if !entry.required && entry.when.is_none() {
        add("when", "a row that is not required says when it is wanted");
    }
    let named = !entry.hosts.is_empty() || !entry.addresses.is_empty() || entry.peer.is_some();
    let outside = [Role::External, Role::JumpHost];
    if !named
        && entry
            .from
            .iter()
            .chain(&entry.to)
            .any(|role| outside.contains(role))
    {
        add(
            "peer",
            "an end outside the product needs a host, an address or words (peer)",
        );
    }
    if entry.owner == Owner::Installation
        && entry
            .to
            .iter()
            .any(|role| matches!(role, Role::External | Role::Upstream))
    {
        add(
            "owner",
            "external machines and upstreams are not the installation's",
        );
    }
    if entry.hosts.is_empty() && !entry.aliases.is_empty() {
        add("aliases", "aliases of no host");
    }
    let geos = catalogue.geos_of(entry);
    let patterns = || entry.hosts.iter().chain(&entry.aliases);
    let with_geo = patterns().any(|pattern| pattern.has_geo());
    if with_geo && geos.is_empty() {
        add(
            "hosts",
            "<geo> without a list of geos, here or in the catalogue",
        );
    }
    if !with_geo && !entry.geos.is_empty() {
        add("geos", "geos without <geo> in a host");
    }
    if geos.iter().any(|geo| !crate::is_label(geo)) {
        add("geos", "a geo must be a DNS label");
    }
    if patterns().any(|pattern| {
        !pattern
            .labels
            .iter()
            .any(|l| matches!(l, crate::host::Label::Literal(_)))
    }) {
        add(
            "hosts",
            "a pattern without one fixed label matches too much",
        );
    }
    if let Some(feature) = &entry.feature
        && !catalogue.features.contains_key(feature)
    {
        add(
            "feature",
            &format!("`{feature}` is not among the catalogue's features"),
        );
    }
    for other in &entry.shares {
        match catalogue.entry(other.as_str()) {
            None => add("shares", &format!("there is no entry `{other}`")),
            Some(other) if !overlap(catalogue, entry, other) => {
                add(
                    "shares",
                    &format!("`{}` does not overlap with this row", other.id),
                );
            }
            Some(_) => {}
        }
    }
}

fn lint_pair(catalogue: &Catalogue, earlier: &Entry, later: &Entry, found: &mut Findings) {
    let said = earlier.shares.contains(&later.id) || later.shares.contains(&earlier.id);
    if !said && overlap(catalogue, earlier, later) {
        let message = format!(
            "same port, acceptor and host as `{}`; name it in `shares` if that is meant",
            earlier.id
        );
        found.add(Some(later), "ports", &message);
    }
}

/// Whether traffic could belong to either row: same flow, same acceptor, and a common host.
fn overlap(catalogue: &Catalogue, a: &Entry, b: &Entry) -> bool {
    let flows = b.flows();
    if !a.flows().iter().any(|flow| flows.contains(flow)) {
        return false;
    }
    // Machines outside the product are told apart by what the row calls them.
    let place = |entry: &Entry| (entry.peer.clone(), entry.addresses.clone());
    let roles = a.to.iter().filter(|role| b.to.contains(role));
    let same_acceptor = roles.into_iter().any(|role| match role {
        Role::External => !a.hosts.is_empty() || place(a) == place(b),
        _ => true,
    });
    if !same_acceptor {
        return false;
    }
    let (geos_a, geos_b) = (catalogue.geos_of(a), catalogue.geos_of(b));
    let hosts = |entry: &Entry| {
        entry
            .hosts
            .iter()
            .chain(&entry.aliases)
            .cloned()
            .collect::<Vec<_>>()
    };
    let (hosts_a, hosts_b) = (hosts(a), hosts(b));
    match (hosts_a.is_empty(), hosts_b.is_empty()) {
        (true, true) => true,
        // A row without names takes whatever arrives, but only on a machine of the product.
        (true, false) | (false, true) => !a.to.contains(&Role::External),
        (false, false) => hosts_a
            .iter()
            .any(|one| hosts_b.iter().any(|two| one.overlaps(geos_a, two, geos_b))),
    }
}

fn has_twice<T: PartialEq>(items: &[T]) -> bool {
    items
        .iter()
        .enumerate()
        .any(|(at, item)| items[..at].contains(item))
}
