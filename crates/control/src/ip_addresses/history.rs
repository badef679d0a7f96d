//! Every version that was published: what changed, and when.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use sallyport_contract::{PublishedChange, PublishedList};
use serde::{Deserialize, Serialize};

/// Version of the file's form.
const FORMAT: u32 = 1;
/// Versions that are kept; older ones are forgotten.
const VERSIONS_MAX: usize = 200;
const DATE: &str = "%Y-%m-%d-%H-%M-%S";

/// Versions, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    format: u32,
    versions: Vec<PublishedList>,
}

/// Why a change log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Not the JSON that this program wrote.
    #[error("is not a change log of addresses: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer program.
    #[error("is of format {0}, this build reads {FORMAT}")]
    Format(u32),
    /// A version's date is none.
    #[error("has a version of {0:?}, which is no date")]
    Date(String),
}

/// A version and what it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version<'a> {
    /// Date of the version, from which it is valid.
    pub(super) update_date: &'a str,
    /// What it added and removed.
    pub(super) changes: Vec<PublishedChange>,
}

impl Default for History {
    fn default() -> History {
        History {
            format: FORMAT,
            versions: Vec::new(),
        }
    }
}

impl History {
    pub(super) fn parse(text: &str) -> Result<History, HistoryError> {
        let history: History = serde_json::from_str(text)?;
        if history.format != FORMAT {
            return Err(HistoryError::Format(history.format));
        }
        match history
            .versions
            .iter()
            .find(|it| instant(&it.update_date).is_none())
        {
            Some(bad) => Err(HistoryError::Date(bad.update_date.clone())),
            None => Ok(history),
        }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings, numbers and lists always become JSON")
    }

    pub(super) fn newest(&self) -> Option<&PublishedList> {
        self.versions.last()
    }

    /// Adds `list` as the version of `now`, unless it is the newest already. Dates always rise.
    pub(super) fn publish(&mut self, list: PublishedList, now: i64) -> bool {
        let mut at = now;
        if let Some(newest) = self.versions.last() {
            let undated = PublishedList {
                update_date: newest.update_date.clone(),
                ..list.clone()
            };
            if undated == *newest {
                return false;
            }
            at = at.max(instant(&newest.update_date).map_or(now, |it| it.as_second() + 1));
        }
        self.versions.push(PublishedList {
            update_date: date(at),
            ..list
        });
        let surplus = self.versions.len().saturating_sub(VERSIONS_MAX);
        self.versions.drain(..surplus);
        true
    }

    /// Versions after the one of `since` (all without it), newest first, with what each changed.
    pub(super) fn since(&self, since: Option<&str>) -> Vec<Version<'_>> {
        let nothing = PublishedList::default();
        let before = std::iter::once(&nothing).chain(&self.versions);
        let pairs = before.zip(&self.versions);
        let versions = pairs.map(|(before, after)| Version {
            update_date: &after.update_date,
            changes: before.changes(after),
        });
        let wanted = |it: &Version<'_>| since.is_none_or(|since| it.update_date > since);
        let mut versions: Vec<Version<'_>> = versions.filter(wanted).collect();
        versions.reverse();
        versions
    }
}

/// `YYYY-MM-DD-HH-mm-ss` in UTC.
fn date(unix_secs: i64) -> String {
    let time = Timestamp::from_second(unix_secs).unwrap_or_default();
    time.strftime(DATE).to_string()
}

/// The moment of a date.
pub(super) fn instant(date: &str) -> Option<Timestamp> {
    let time = civil::DateTime::strptime(DATE, date).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|it| it.timestamp())
}
