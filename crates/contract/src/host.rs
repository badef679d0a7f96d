//! Host name patterns such as `<prefix>.<geo>.cp0.<base>`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// One label of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Label {
    Literal(String),
    Geo,
    Prefix,
    Portal,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Label::Literal(text) => text,
            Label::Geo => "<geo>",
            Label::Prefix => "<prefix>",
            Label::Portal => "<portal>",
        })
    }
}

/// A host name with places: `<prefix>` (control plane), `<geo>`, `<portal>`, and `<base>` at the end.
///
/// A pattern without `<base>` is a name of somebody else's domain and stands as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPattern {
    pub(crate) labels: Vec<Label>,
    pub(crate) on_base: bool,
}

/// A pattern or name that cannot be a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The pattern itself is malformed.
    #[error(
        "`{pattern}` is not a host pattern: `{label}` is neither a DNS label nor one of \
         <prefix>, <geo>, <portal> or, at the end, <base>"
    )]
    Pattern {
        /// The whole pattern.
        pattern: String,
        /// The label that is wrong.
        label: String,
    },
    /// A place of the pattern has no value.
    #[error("`{pattern}` needs a value for <{place}>")]
    Missing {
        /// The whole pattern.
        pattern: String,
        /// `geo`, `prefix`, `portal` or `base`.
        place: &'static str,
    },
    /// A value is not a DNS label, or the whole name is too long.
    #[error(
        "`{name}` is not a host name (labels of 1 to 63 letters, digits, `-`, `_`; 253 in all)"
    )]
    NotAHost {
        /// The name as it came out.
        name: String,
    },
}

/// What goes into the places of a pattern.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names<'a> {
    /// Base domain of the installation, such as `sallyport.example`.
    pub base: &'a str,
    /// Geo, such as `eu`.
    pub geo: Option<&'a str>,
    /// DNS prefix of a control plane.
    pub prefix: Option<&'a str>,
    /// Id of a developer portal.
    pub portal: Option<&'a str>,
}

/// The values found in a concrete host, lower-cased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) geo: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) portal: Option<String>,
}

/// Whether `text` is one DNS label: 1 to 63 ASCII letters, digits, `-` or `_`, no `-` at an end.
pub fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Lower-case, without the trailing dot.
pub(crate) fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

impl HostPattern {
    /// The concrete host for `names`, in lower case.
    ///
    /// # Errors
    /// A place without a value, or a value that makes no host name.
    pub fn render(&self, names: &Names<'_>) -> Result<String, NameError> {
        let missing = |place| NameError::Missing {
            pattern: self.to_string(),
            place,
        };
        let mut labels = Vec::with_capacity(self.labels.len() + 1);
        for label in &self.labels {
            labels.push(match label {
                Label::Literal(text) => text.as_str(),
                Label::Geo => names.geo.ok_or_else(|| missing("geo"))?,
                Label::Prefix => names.prefix.ok_or_else(|| missing("prefix"))?,
                Label::Portal => names.portal.ok_or_else(|| missing("portal"))?,
            });
        }
        let base = normal(names.base);
        let labels_good = labels.iter().copied().all(is_label);
        if self.on_base {
            if base.is_empty() {
                return Err(missing("base"));
            }
            labels.push(&base);
        }
        let name = labels.join(".").to_ascii_lowercase();
        if labels_good && name.len() <= 253 && name.split('.').all(is_label) {
            Ok(name)
        } else {
            Err(NameError::NotAHost { name })
        }
    }

    /// The pattern with `<geo>` filled in, as text; other places stay.
    pub fn with_geo(&self, geo: &str) -> String {
        self.to_string().replace("<geo>", geo)
    }

    /// Whether the pattern has `<geo>` in it.
    pub fn has_geo(&self) -> bool {
        self.labels.contains(&Label::Geo)
    }

    /// Whether the pattern has `<prefix>` in it.
    pub fn has_prefix(&self) -> bool {
        self.labels.contains(&Label::Prefix)
    }

    /// Whether the pattern has `<portal>` in it.
    pub fn has_portal(&self) -> bool {
        self.labels.contains(&Label::Portal)
    }

    /// Matches the labels of a normalised host (base already cut off where `on_base`).
    pub(crate) fn matches(&self, labels: &[&str], geos: &[String]) -> Option<Found> {
        if labels.len() != self.labels.len() {
            return None;
        }
        let mut found = Found::default();
        for (label, text) in self.labels.iter().zip(labels) {
            match label {
                Label::Literal(want) if want == text => {}
                Label::Geo if geos.iter().any(|geo| geo == text) => {
                    found.geo = Some((*text).to_owned());
                }
                Label::Prefix if is_label(text) => found.prefix = Some((*text).to_owned()),
                Label::Portal if is_label(text) => found.portal = Some((*text).to_owned()),
                _ => return None,
            }
        }
        Some(found)
    }

    /// Whether some host fits both patterns, each with its own geos.
    pub(crate) fn overlaps(&self, geos: &[String], other: &HostPattern, others: &[String]) -> bool {
        let meet = |a: &Label, b: &Label| match (a, b) {
            (Label::Literal(a), Label::Literal(b)) => a == b,
            (Label::Literal(a), Label::Geo) => others.contains(a),
            (Label::Geo, Label::Literal(b)) => geos.contains(b),
            (Label::Geo, Label::Geo) => geos.iter().any(|geo| others.contains(geo)),
            (Label::Prefix | Label::Portal, _) | (_, Label::Prefix | Label::Portal) => true,
        };
        self.on_base == other.on_base
            && self.labels.len() == other.labels.len()
            && self
                .labels
                .iter()
                .zip(&other.labels)
                .all(|(a, b)| meet(a, b))
    }
}

impl FromStr for HostPattern {
    type Err = NameError;
    fn from_str(text: &str) -> Result<HostPattern, NameError> {
        let mut labels = Vec::new();
        let mut on_base = false;
        for label in text.split('.') {
            let wrong = || NameError::Pattern {
                pattern: text.to_owned(),
                label: label.to_owned(),
            };
            if on_base {
                return Err(wrong());
            }
            match label {
                "<geo>" => labels.push(Label::Geo),
                "<prefix>" => labels.push(Label::Prefix),
                "<portal>" => labels.push(Label::Portal),
                "<base>" => on_base = true,
                literal if is_label(literal) && literal == literal.to_ascii_lowercase() => {
                    labels.push(Label::Literal(literal.to_owned()));
                }
                _ => return Err(wrong()),
            }
        }
        Ok(HostPattern { labels, on_base })
    }
}

impl TryFrom<String> for HostPattern {
    type Error = NameError;
    fn try_from(text: String) -> Result<HostPattern, NameError> {
        text.parse()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, label) in self.labels.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            label.fmt(f)?;
        }
        match (self.on_base, self.labels.is_empty()) {
            (true, false) => f.write_str(".<base>"),
            (true, true) => f.write_str("<base>"),
            (false, _) => Ok(()),
        }
    }
}
