//! Telemetry's own settings, TOML; docs/telemetry.md describes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::ClientConfig;
use serde::Deserialize;

use super::database::Grain;
use crate::post::trusting;

/// Why telemetry does not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A setting cannot be used.
    #[error("telemetry: {key}: {reason}")]
    Setting {
        /// Its place, as `remote_write.url`.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The database cannot be used.
    #[error(
        "the telemetry database {path} cannot be used: {reason}; it holds nothing but telemetry and may be moved away"
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// What the engine says.
        reason: String,
    },
}

/// Where telemetry is kept, for how long, and where else it goes.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// Directory of `telemetry.db`.
    pub directory: PathBuf,
    pub(super) keep: Keep,
    pub(super) destinations: Vec<Destination>,
}

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep {
    /// Minutes in which nodes are told apart.
    pub(super) node_minutes: i64,
    pub(super) minute_hours: i64,
    pub(super) hour_days: i64,
    /// Combinations of one control plane.
    pub(super) series_max: usize,
}

impl Keep {
    /// How long sums of this grain are kept.
    pub(super) fn seconds(&self, grain: Grain) -> i64 {
        match grain {
            Grain::Minute => self.minute_hours * 3_600,
            Grain::Hour => self.hour_days * 86_400,
        }
    }
}

impl Default for Keep {
    fn default() -> Keep {
        Keep {
            node_minutes: 60,
            minute_hours: 48,
            hour_days: 400,
            series_max: 20_000,
        }
    }
}

/// Which form a destination takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    RemoteWrite,
    Otlp,
}

impl Form {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Form::RemoteWrite => "remote_write",
            Form::Otlp => "otlp",
        }
    }
}

/// Somebody to whom telemetry is pushed on.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) form: Form,
    /// As written.
    pub(super) url: String,
    pub(super) uri: Uri,
    pub(super) interval: Duration,
    pub(super) authorization: String,
    /// For `https`.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Label `instance`, or attribute `service.instance.id`'s origin.
    pub(super) instance: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    keep: RawKeep,
    remote_write: Vec<RawDestination>,
    otlp: Vec<RawDestination>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawKeep {
    node_minutes: Option<i64>,
    minute_hours: Option<i64>,
    hour_days: Option<i64>,
    series_max: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDestination {
    url: String,
    interval_seconds: Option<u64>,
    authorization: Option<String>,
    ca: Option<Vec<String>>,
    instance: Option<String>,
}

fn bad(key: impl Into<String>, reason: impl ToString) -> TelemetryError {
    TelemetryError::Setting {
        key: key.into(),
        reason: reason.to_string(),
    }
}

impl TelemetrySettings {
    /// Kept in `directory` as long as is usual, and pushed on to nobody.
    pub fn quiet(directory: impl Into<PathBuf>) -> TelemetrySettings {
        TelemetrySettings {
            directory: directory.into(),
            keep: Keep::default(),
            destinations: Vec::new(),
        }
    }

    /// Kept in `directory`, with the settings of a TOML text.
    ///
    /// # Errors
    /// The first setting that cannot be used, by its key. Reads the certificates it names.
    pub fn parse(
        directory: impl Into<PathBuf>,
        text: &str,
    ) -> Result<TelemetrySettings, TelemetryError> {
        let raw: Raw = toml::from_str(text).map_err(|it| bad("settings", it))?;
        let keep = keep(&raw.keep)?;
        let remote_write = raw
            .remote_write
            .into_iter()
            .map(|it| (Form::RemoteWrite, it));
        let otlp = raw.otlp.into_iter().map(|it| (Form::Otlp, it));
        let mut destinations: Vec<Destination> = Vec::new();
        for (form, raw) in remote_write.chain(otlp) {
            let made = destination(form, raw)?;
            if destinations.iter().any(|it| it.url == made.url) {
                let key = format!("{}.url", form.as_str());
                return Err(bad(key, format!("{:?} stands there twice", made.url)));
            }
            destinations.push(made);
        }
        Ok(TelemetrySettings {
            directory: directory.into(),
            keep,
            destinations,
        })
    }
}

fn keep(raw: &RawKeep) -> Result<Keep, TelemetryError> {
    let number = |key: &str, value: Option<i64>, default: i64, most: i64| match value {
        None => Ok(default),
        Some(value) if (1..=most).contains(&value) => Ok(value),
        Some(value) => {
            let reason = format!("{value} must be from 1 to {most}");
            Err(bad(format!("keep.{key}"), reason))
        }
    };
    let usual = Keep::default();
    let minute_hours = number(
        "minute_hours",
        raw.minute_hours,
        usual.minute_hours,
        24 * 31,
    )?;
    let node_minutes = raw
        .node_minutes
        .unwrap_or(usual.node_minutes.min(minute_hours * 60));
    let series_max = number(
        "series_max",
        raw.series_max,
        usual.series_max as i64,
        1_000_000,
    )?;
    Ok(Keep {
        node_minutes: number("node_minutes", Some(node_minutes), 0, minute_hours * 60)?,
        minute_hours,
        hour_days: number("hour_days", raw.hour_days, usual.hour_days, 3_660)?,
        series_max: usize::try_from(series_max).unwrap_or(usual.series_max),
    })
}

fn destination(form: Form, raw: RawDestination) -> Result<Destination, TelemetryError> {
    let key = |field: &str| format!("{}.{field}", form.as_str());
    let uri: Uri = raw
        .url
        .parse()
        .map_err(|_| bad(key("url"), format!("{:?} is not a URL", raw.url)))?;
    let is_tls = match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(_)) => false,
        (Some("https"), Some(_)) => true,
        _ => {
            let reason = format!("{:?} must be http://host… or https://host…", raw.url);
            return Err(bad(key("url"), reason));
        }
    };
    let seconds = raw.interval_seconds.unwrap_or(15);
    if !(1..=3_600).contains(&seconds) {
        let reason = format!("{seconds} must be from 1 to 3600");
        return Err(bad(key("interval_seconds"), reason));
    }
    let authorization = raw.authorization.unwrap_or_default();
    if http::HeaderValue::from_str(&authorization).is_err() {
        return Err(bad(key("authorization"), "it cannot stand in a header"));
    }
    let tls = match is_tls {
        false if raw.ca.is_some() => return Err(bad(key("ca"), "is for https only")),
        false => None,
        true => {
            let ca = raw.ca.unwrap_or_else(|| vec!["system".to_owned()]);
            Some(trusting(&ca).map_err(|it| bad(key("ca"), it))?)
        }
    };
    Ok(Destination {
        form,
        url: raw.url,
        uri,
        interval: Duration::from_secs(seconds),
        authorization,
        tls,
        instance: raw.instance.unwrap_or_else(|| "sallyport".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let error = TelemetrySettings::parse("x", text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn settings_have_defaults() {
        let settings = TelemetrySettings::parse("x", "").unwrap();
        assert_eq!(settings.keep, Keep::default());
        let text =
            "[keep]\nminute_hours = 1\n[[remote_write]]\nurl = \"http://p:9090/api/v1/write\"";
        let settings = TelemetrySettings::parse("x", text).unwrap();
        assert_eq!(settings.keep.node_minutes, 60);
        let first = &settings.destinations[0];
        assert_eq!(
            (first.form, first.interval),
            (Form::RemoteWrite, Duration::from_secs(15))
        );
        assert!(first.tls.is_none());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        refused("[kep]", "kep");
        refused("[keep]\nminute_hours = 0", "keep.minute_hours");
        refused(
            "[keep]\nminute_hours = 1\nnode_minutes = 61",
            "keep.node_minutes",
        );
        refused("[keep]\nseries_max = -1", "keep.series_max");
        refused("[[otlp]]", "otlp.url");
        refused("[[otlp]]\nurl = \"ftp://x/\"", "otlp.url");
        refused("[[otlp]]\nurl = \"http://x/\"\nca = []", "otlp.ca");
        refused(
            "[[otlp]]\nurl = \"http://x/\"\ninterval_seconds = 0",
            "otlp.interval_seconds",
        );
        refused(
            "[[otlp]]\nurl = \"https://x/\"\nca = [\"/no/file\"]",
            "otlp.ca",
        );
        refused(
            "[[otlp]]\nurl = \"http://x/\"\nauthorization = \"a\\nb\"",
            "otlp.authorization",
        );
        refused(
            "[[otlp]]\nurl = \"http://x/\"\n[[remote_write]]\nurl = \"http://x/\"",
            "twice",
        );
    }
}
