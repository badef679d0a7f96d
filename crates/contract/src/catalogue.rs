//! A set of entries, its file format, and the way back from a host name to its entry.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

use crate::entry::Entry;
use crate::host::normal;

/// The version of the file format that this build reads.
pub(crate) const FORMAT: u32 = 1;

/// A catalogue: the rows of one product.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Version of the file format, 1.
    pub format: u32,
    /// Short name: `sallyport`.
    pub name: String,
    /// What the catalogue covers, in a few words.
    pub title: String,
    /// The base domain, where it is not a setting of the installation.
    #[serde(default)]
    pub base: Option<String>,
    /// The geos that `<geo>` stands for, unless an entry has its own.
    #[serde(default)]
    pub geos: Vec<String>,
    /// Features that bring rows with them, and what each is.
    #[serde(default)]
    pub features: BTreeMap<String, String>,
    /// The rows, in the order in which they are shown.
    #[serde(default, rename = "entry")]
    pub entries: Vec<Entry>,
}

/// Why a catalogue could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// The file is of another format version.
    #[error("line {line}: catalogue format {found}, this build reads format {FORMAT}")]
    Format {
        /// 1-based line of `format`.
        line: usize,
        /// The version found.
        found: u64,
    },
    /// Not TOML, an unknown key, a missing key or a wrong value.
    #[error("{}{message}", place(.line, .entry, .field))]
    Bad {
        /// 1-based line, where known.
        line: Option<usize>,
        /// The id of the entry (or its number, `#3`, when it has none).
        entry: Option<String>,
        /// The field.
        field: Option<String>,
        /// What is wrong.
        message: String,
    },
}

fn place(line: &Option<usize>, entry: &Option<String>, field: &Option<String>) -> String {
    let mut text = String::new();
    for (word, value) in [
        ("line", line.map(|line| line.to_string())),
        ("entry", entry.clone()),
        ("field", field.clone()),
    ] {
        if let Some(value) = value {
            text.push_str(if text.is_empty() { "" } else { ", " });
            text.push_str(&format!("{word} {value}"));
        }
    }
    if !text.is_empty() {
        text.push_str(": ");
    }
    text
}

/// What a concrete host name stands for. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMatch<'a> {
    /// The row; of rows that share a name, the first.
    pub entry: &'a Entry,
    /// The geo in the name, `global` included where the row has it.
    pub geo: Option<String>,
    /// The control plane's prefix in the name.
    pub prefix: Option<String>,
    /// The portal id in the name.
    pub portal: Option<String>,
}

impl Catalogue {
    /// Reads a catalogue file (TOML, `format = 1`).
    ///
    /// Rules between fields and rows are not checked here; see [`crate::lint`].
    ///
    /// # Errors
    /// Another format version, malformed TOML, unknown or missing keys, bad values; the error names
    /// line, entry and field as far as they are known.
    pub fn parse(text: &str) -> Result<Catalogue, CatalogueError> {
        // The version first: a newer file may well have keys that this build does not know.
        #[derive(Deserialize)]
        struct Version {
            format: toml::Spanned<u64>,
        }
        if let Ok(version) = toml::from_str::<Version>(text)
            && *version.format.as_ref() != u64::from(FORMAT)
        {
            let line = line_of(text, version.format.span().start);
            return Err(CatalogueError::Format {
                line,
                found: *version.format.as_ref(),
            });
        }
        toml::from_str(text).map_err(|error| bad(text, error.message(), error.span()))
    }

    /// The entry called `id`.
    pub fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }

    /// The geos that `<geo>` stands for in `entry`.
    pub fn geos_of<'a>(&'a self, entry: &'a Entry) -> &'a [String] {
        if entry.geos.is_empty() {
            &self.geos
        } else {
            &entry.geos
        }
    }

    /// Finds the row that a concrete host name belongs to, aliases included.
    ///
    /// `base` is the base domain of the installation. Case and one trailing dot do not matter; any
    /// text is safe to pass.
    pub fn match_host(&self, base: &str, host: &str) -> Option<HostMatch<'_>> {
        let (base, host) = (normal(base), normal(host));
        let all: Vec<&str> = host.split('.').collect();
        let below = host
            .strip_suffix(base.as_str())
            .and_then(|rest| rest.strip_suffix('.'));
        let below: Option<Vec<&str>> = below
            .filter(|_| !base.is_empty())
            .map(|rest| rest.split('.').collect());
        for entry in &self.entries {
            let geos = self.geos_of(entry);
            for pattern in entry.hosts.iter().chain(&entry.aliases) {
                let labels = if pattern.on_base {
                    below.as_ref()
                } else {
                    Some(&all)
                };
                let found = labels.and_then(|labels| pattern.matches(labels, geos));
                if let Some(found) = found {
                    let (geo, prefix, portal) = (found.geo, found.prefix, found.portal);
                    return Some(HostMatch {
                        entry,
                        geo,
                        prefix,
                        portal,
                    });
                }
            }
        }
        None
    }
}

pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&b| b == b'\n').count() + 1
}

/// Adds line, entry and field to an error of the TOML reader.
fn bad(text: &str, message: &str, span: Option<Range<usize>>) -> CatalogueError {
    let message = message.to_owned();
    let Some(span) = span else {
        return CatalogueError::Bad {
            line: None,
            entry: None,
            field: None,
            message,
        };
    };
    let line = line_of(text, span.start);
    let lines: Vec<&str> = text.lines().collect();
    let here = line.min(lines.len());
    let is_head = |line: &&str| line.trim_start().starts_with('[');
    let head = (0..here).rev().find(|&at| is_head(&lines[at]));
    let is_entry = |line: &str| {
        line.trim_start()
            .strip_prefix("[[")
            .is_some_and(|rest| rest.trim_start().starts_with("entry"))
    };
    let entry = head.filter(|&at| is_entry(lines[at])).map(|at| {
        let body = lines[at + 1..].iter().take_while(|line| !is_head(line));
        let id = body
            .filter_map(|line| key_value(line))
            .find(|(key, _)| *key == "id");
        let number = lines[..=at].iter().filter(|line| is_entry(line)).count();
        match id {
            Some((_, value)) => value.trim_matches('"').to_owned(),
            None => format!("#{number}"),
        }
    });
    // An error about the whole table ("missing field") points at its head: no field of its own.
    let field = lines[..here]
        .iter()
        .rev()
        .take_while(|line| !is_head(line))
        .find_map(|line| key_value(line))
        .map(|(key, _)| key.to_owned());
    CatalogueError::Bad {
        line: Some(line),
        entry,
        field,
        message,
    }
}

/// `key = value` at the start of a line.
fn key_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (!key.is_empty() && key.bytes().all(plain)).then(|| (key, value.trim()))
}
