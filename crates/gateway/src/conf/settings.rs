//! File and environment, merged: which property has which value, and from where.

use std::collections::BTreeMap;
use std::fmt;

use super::file;
use super::names::{
    Support, is_guarding_directive, is_injected, is_secret, known, nearest, present_name,
};
use crate::vaults::{Vaults, inner};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A line of the file, from 1.
    Line(usize),
    /// An environment variable of this name.
    Environment(String),
    /// The built-in default, or nothing at all.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Line(number) => write!(f, "line {number}"),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// Something that keeps the gateway from starting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_of}: {key}{}: {message}", shown(.value))]
pub struct Problem {
    /// The property.
    pub key: String,
    /// Its value as it stands; `***` for secrets, empty if there is none.
    pub value: String,
    /// Where the value comes from.
    pub source_of: Source,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Something an operator should know; the gateway starts all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The property.
    pub key: String,
    /// Where it was set.
    pub source_of: Source,
    /// What is the matter.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.source_of, self.key, self.message)
    }
}

fn shown(value: &str) -> String {
    if value.is_empty() {
        String::new()
    } else {
        format!(" = {value}")
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) source: Source,
}

/// What was set, by present name. Defaults are not in here.
#[derive(Debug, Default)]
pub(super) struct Settings {
    set: BTreeMap<String, Setting>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
}

impl Settings {
    /// Merges file and environment and judges every name.
    pub(super) fn merge(
        file_text: Option<&str>,
        environment: &BTreeMap<String, String>,
    ) -> Settings {
        let mut settings = Settings::default();
        if let Some(text) = file_text {
            settings.read_file(text);
        }
        settings.read_environment(environment);
        settings.resolve_references(environment);
        settings.judge_names();
        settings
    }

    /// What `key` was set to, if it was.
    pub(super) fn get(&self, key: &str) -> Option<&Setting> {
        self.set.get(key)
    }

    /// Where each property was set.
    pub(super) fn sources(&self) -> BTreeMap<String, Source> {
        self.set
            .iter()
            .map(|(name, setting)| (name.clone(), setting.source.clone()))
            .collect()
    }

    /// Notes that `key` cannot stay as it is.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        let (value, source_of) = match self.set.get(key) {
            Some(setting) => (setting.value.clone(), setting.source.clone()),
            None => {
                let default = known(key)
                    .and_then(|known| known.default())
                    .unwrap_or_default();
                (default.into_owned(), Source::Default)
            }
        };
        let value = if is_secret(key) && !value.is_empty() {
            "***".to_owned()
        } else {
            shorten(value)
        };
        let (key, message) = (key.to_owned(), message.into());
        self.problems.push(Problem {
            key,
            value,
            source_of,
            message,
        });
    }

    /// Notes something about `key` that an operator should know.
    pub(super) fn warn(&mut self, key: &str, message: impl Into<String>) {
        let source_of = self
            .set
            .get(key)
            .map_or(Source::Default, |setting| setting.source.clone());
        self.warnings.push(Warning {
            key: key.to_owned(),
            source_of,
            message: message.into(),
        });
    }

    fn read_file(&mut self, text: &str) {
        let (lines, bad) = file::lines(text);
        for bad in bad {
            // A broken line may be a piece of a key, so it is not shown.
            let key = bad.text.split_whitespace().next().unwrap_or_default();
            self.problems.push(Problem {
                key: shorten(key.to_owned()),
                value: String::new(),
                source_of: Source::Line(bad.number),
                message: "is not of the form `name = value`".to_owned(),
            });
        }
        for line in lines {
            let name = present_name(&line.name);
            if let Some(Setting {
                source: Source::Line(first),
                ..
            }) = self.set.get(name)
            {
                let message = format!("was already set in line {first}; this line counts");
                self.warnings.push(Warning {
                    key: line.name.clone(),
                    source_of: Source::Line(line.number),
                    message,
                });
            }
            let setting = Setting {
                value: line.value,
                source: Source::Line(line.number),
            };
            self.set.insert(name.to_owned(), setting);
        }
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (variable, raw) in environment {
            let Some(name) = variable.strip_prefix("KONG_") else {
                continue;
            };
            if name.chars().any(|c| c.is_ascii_lowercase()) {
                continue;
            }
            let lower = name.to_ascii_lowercase();
            let name = present_name(&lower);
            if known(name).is_none() && !is_injected(name) {
                // Images set variables such as KONG_VERSION, so only likely typos are told.
                if let Some(nearest) = nearest(name) {
                    self.warnings.push(Warning {
                        key: name.to_owned(),
                        source_of: Source::Environment(variable.clone()),
                        message: unknown(Some(nearest)),
                    });
                }
                continue;
            }
            // A document of its own, in which `#` means something else.
            let verbatim = name == "declarative_config_string";
            let value = if verbatim {
                raw.clone()
            } else {
                file::value(raw)
            };
            let source = Source::Environment(variable.clone());
            self.set.insert(name.to_owned(), Setting { value, source });
        }
    }

    /// Puts what vaults hold in the place of references to them.
    fn resolve_references(&mut self, environment: &BTreeMap<String, String>) {
        let text = |key: &str, default: &str| {
            let set = self.set.get(key).map(|setting| setting.value.clone());
            set.filter(|value| !value.is_empty())
                .unwrap_or(default.to_owned())
        };
        let prefix = text("vault_env_prefix", "");
        let directory = known("vault_file_prefix").and_then(|known| known.default());
        let directory = text("vault_file_prefix", &directory.unwrap_or_default());
        let vaults = Vaults::new(environment.clone(), prefix, directory.into());
        let mut failed = Vec::new();
        for (key, setting) in &mut self.set {
            let Some(reference) = inner(&setting.value) else {
                continue;
            };
            match vaults.resolve(reference) {
                Ok(value) => setting.value = value,
                Err(message) => failed.push((key.clone(), message)),
            }
        }
        for (key, message) in failed {
            self.problem(&key, message);
            // Nothing may go on with the reference in place of the value.
            self.set.remove(&key);
        }
    }

    fn judge_names(&mut self) {
        let names: Vec<String> = self.set.keys().cloned().collect();
        for name in names {
            let value = self.set[&name].value.clone();
            match known(&name) {
                Some(known) => match known.support {
                    Support::Acts | Support::Inert => {}
                    Support::Ignored if same(&value, &known.default().unwrap_or_default()) => {}
                    Support::Ignored => {
                        self.warn(&name, "this build does not act on it; the default applies");
                    }
                    Support::Refused(harmless) => {
                        if !value.is_empty() && !harmless.iter().any(|ok| same(&value, ok)) {
                            let message = format!(
                                "not supported by this build; possible: {}",
                                harmless.join(", ")
                            );
                            self.problem(&name, message);
                        }
                    }
                },
                None if is_guarding_directive(&name) => {
                    self.problem(
                        &name,
                        "not supported by this build, and unsafe to leave out",
                    );
                }
                None if is_injected(&name) => {
                    self.warn(&name, "nginx directives have no effect here");
                }
                None if has_own_names(&name) => {
                    self.warn(&name, "this build does not act on it");
                }
                // Kong ignores these too when database=off.
                None if name.starts_with("pg_") => {}
                None => self.warn(&name, unknown(nearest(&name))),
            }
        }
    }
}

/// Families of properties whose names the operator makes up.
fn has_own_names(name: &str) -> bool {
    name.starts_with("pluginserver_") || name.starts_with("vault_")
}

fn unknown(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("unknown property; did you mean {nearest}?"),
        None => "unknown property, it has no effect".to_owned(),
    }
}

/// Whether two values mean the same: case and blanks do not count, `true` is `on`.
fn same(a: &str, b: &str) -> bool {
    let plain = |text: &str| {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        match text.to_ascii_lowercase().as_str() {
            "true" => "on".to_owned(),
            "false" => "off".to_owned(),
            other => other.to_owned(),
        }
    };
    plain(a) == plain(b)
}

fn shorten(text: String) -> String {
    const CHARS_MAX: usize = 120;
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    text.chars().take(CHARS_MAX).chain("…".chars()).collect()
}
