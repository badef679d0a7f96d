//! Every version that was published: what changed, and when.
//!
//! The database holds it; a file of an older build is read once.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use sallyport_contract::{PublishedChange, PublishedList};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::contribution::Planned;

/// Version of the form of an older build's file.
const FORMAT: u32 = 1;
/// Versions that are kept; older ones are forgotten.
pub(super) const VERSIONS_MAX: u32 = 200;
const DATE: &str = "%Y-%m-%d-%H-%M-%S";

/// Versions, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    versions: Vec<PublishedList>,
    /// What was announced and is not in force yet, soonest first.
    announced: Vec<Announced>,
}

/// The file of an older build.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldFile {
    format: u32,
    versions: Vec<PublishedList>,
    #[serde(default)]
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

/// Why a history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Not the JSON that this program wrote.
    #[error("is not a history of addresses: {0}")]
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

impl History {
    /// Reads the file of an older build.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub(super) fn of_file(text: &str) -> Result<History, HistoryError> {
        let file: OldFile = serde_json::from_str(text)?;
        if file.format != FORMAT {
            return Err(HistoryError::Format(file.format));
        }
        History {
            versions: file.versions,
            announced: file.announced,
        }
        .checked()
    }

    /// Reads what the database holds.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub(super) fn of_rows(
        versions: Vec<Value>,
        announced: Vec<Value>,
    ) -> Result<History, HistoryError> {
        let versions = versions.into_iter().map(serde_json::from_value);
        let announced = announced.into_iter().map(serde_json::from_value);
        History {
            versions: versions.collect::<Result<_, _>>()?,
            announced: announced.collect::<Result<_, _>>()?,
        }
        .checked()
    }

    fn checked(self) -> Result<History, HistoryError> {
        let dates = self.versions.iter().map(|it| &it.update_date);
        let more = self
            .announced
            .iter()
            .flat_map(|it| [&it.at, &it.list.update_date]);
        let bad = dates.chain(more).find(|date| instant(date).is_none());
        match bad.cloned() {
            Some(bad) => Err(HistoryError::Date(bad)),
            None => Ok(self),
        }
    }

    /// For the database: the newest `count` versions, and what is announced.
    pub(super) fn rows(&self, count: usize) -> (Vec<Value>, Vec<Value>) {
        fn rows<T: Serialize>(those: &[T]) -> Vec<Value> {
            let rows = those.iter().map(serde_json::to_value);
            rows.map(|it| it.expect("strings, numbers and lists always become JSON"))
                .collect()
        }
        let from = self.versions.len().saturating_sub(count);
        (rows(&self.versions[from..]), rows(&self.announced))
    }

    /// How many versions there are.
    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    pub(super) fn newest(&self) -> Option<&PublishedList> {
        self.versions.last()
    }

    /// `now`, or the date of the newest version if that is later: what one process found due stays
    /// due for all, also for those whose clock is behind.
    pub(super) fn not_before_newest(&self, now: i64) -> i64 {
        let newest = self.newest().and_then(|it| instant(&it.update_date));
        newest.map_or(now, |it| it.as_second().max(now))
    }

    /// Adds `list` as the version of `now`, unless it is the newest already, or the first and empty.
    /// Dates always rise.
    pub(super) fn publish(&mut self, list: PublishedList, now: i64) -> bool {
        let mut at = now;
        if self.versions.is_empty() && list == PublishedList::default() {
            return false;
        }
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
        let surplus = self.versions.len().saturating_sub(VERSIONS_MAX as usize);
        self.versions.drain(..surplus);
        true
    }

    /// Announces at `now` what will be in force from which second, soonest first; whether that
    /// is news.
    pub(super) fn announce(&mut self, planned: &[Planned], now: i64) -> bool {
        let announced = planned.iter().map(|it| {
            let list = PublishedList {
                update_date: date(it.from),
                ..it.list.clone()
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
