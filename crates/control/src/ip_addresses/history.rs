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
    /// What was announced and is not in force yet, soonest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    announced: Vec<Announced>,
}

/// A list that will be in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Announced {
    /// When it was announced.
    at: String,
    /// The list; its date is the one from which it is in force.
    list: PublishedList,
}

/// A change that comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Announcement<'a> {
    /// From when it is valid.
    pub(super) valid_from: &'a str,
    /// When it was announced.
    pub(super) announced: &'a str,
    /// What it will add and remove.
    pub(super) changes: Vec<PublishedChange>,
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
            announced: Vec::new(),
        }
    }
}

impl History {
    pub(super) fn parse(text: &str) -> Result<History, HistoryError> {
        let history: History = serde_json::from_str(text)?;
        if history.format != FORMAT {
            return Err(HistoryError::Format(history.format));
        }
        let dates = history.versions.iter().map(|it| &it.update_date);
        let more = history
            .announced
            .iter()
            .flat_map(|it| [&it.at, &it.list.update_date]);
        let bad = dates.chain(more).find(|date| instant(date).is_none());
        match bad.cloned() {
            Some(bad) => Err(HistoryError::Date(bad)),
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

    /// Announces at `now` what will be in force from which second, soonest first; whether that
    /// is news.
    pub(super) fn announce(&mut self, planned: &[(i64, PublishedList)], now: i64) -> bool {
        let announced = planned.iter().map(|(from, list)| {
            let list = PublishedList {
                update_date: date(*from),
                ..list.clone()
            };
            let known = self.announced.iter().find(|it| it.list == list);
            let at = known.map_or_else(|| date(now), |it| it.at.clone());
            Announced { at, list }
        });
        let announced: Vec<Announced> = announced.collect();
        let is_news = announced != self.announced;
        self.announced = announced;
        is_news
    }

    /// What was announced, soonest first, each against the one before.
    pub(super) fn announced(&self) -> Vec<Announcement<'_>> {
        let nothing = PublishedList::default();
        let mut before = self.newest().unwrap_or(&nothing);
        let mut all = Vec::new();
        for it in &self.announced {
            all.push(Announcement {
                valid_from: &it.list.update_date,
                announced: &it.at,
                changes: before.changes(&it.list),
            });
            before = &it.list;
        }
        all
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
