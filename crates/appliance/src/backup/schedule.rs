//! When backups are made.

use std::str::FromStr;

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions, parse_crontab_with};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// Text that is no schedule.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is no schedule: {detail}; write five fields of cron (UTC), such as \"0 3 * * *\", or \
     \"every 6h\""
)]
pub struct ScheduleError {
    text: String,
    detail: String,
}

/// When backups are made: `0 3 * * *` (five fields of cron, UTC) or `every 6h`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Schedule(When);

#[derive(Clone, Debug)]
enum When {
    Cron(Box<Crontab>),
    Every(SignedDuration),
}

impl TryFrom<String> for Schedule {
    type Error = ScheduleError;

    fn try_from(text: String) -> Result<Schedule, ScheduleError> {
        text.parse()
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        let refuse = |detail: String| ScheduleError {
            text: text.to_owned(),
            detail,
        };
        if let Some(every) = text.trim().strip_prefix("every ") {
            let every: SignedDuration = every
                .trim()
                .parse()
                .map_err(|error: jiff::Error| refuse(error.to_string()))?;
            if every < SignedDuration::from_mins(1) || every > SignedDuration::from_hours(24 * 366)
            {
                return Err(refuse("an interval is a minute to a year".to_owned()));
            }
            return Ok(Schedule(When::Every(every)));
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let cron = parse_crontab_with(text, options).map_err(|error| refuse(error.to_string()))?;
        // One that never comes is a mistake, such as the 30th of February.
        let ever = cron.find_next(MakeTimestamp(Timestamp::UNIX_EPOCH));
        ever.map_err(|error| refuse(error.to_string()))?;
        Ok(Schedule(When::Cron(Box::new(cron))))
    }
}

impl Schedule {
    /// When the next backup is due after one at `last`; at once if there was none.
    ///
    /// A time that was missed, as the node was down, is due at once when it is past.
    pub fn due(&self, last: Option<Timestamp>) -> Timestamp {
        let Some(last) = last else {
            return Timestamp::UNIX_EPOCH;
        };
        match &self.0 {
            When::Every(every) => last.checked_add(*every).unwrap_or(Timestamp::MAX),
            When::Cron(cron) => match cron.find_next(MakeTimestamp(last)) {
                Ok(next) => next.timestamp(),
                Err(_) => Timestamp::MAX,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &str, last: &str, due: &str) {
        let schedule: Schedule = schedule.parse().unwrap();
        assert_eq!(schedule.due(Some(last.parse().unwrap())).to_string(), due);
    }

    #[test]
    fn the_next_one_is_due_after_the_last() {
        check("0 3 * * *", "2026-01-31T02:59:59Z", "2026-01-31T03:00:00Z");
        check("0 3 * * *", "2026-01-31T03:00:00Z", "2026-02-01T03:00:00Z");
        check(
            "*/15 * * * MON",
            "2026-01-31T03:00:00Z",
            "2026-02-02T00:00:00Z",
        );
        check("every 6h", "2026-01-31T03:00:00Z", "2026-01-31T09:00:00Z");
        check(
            "every 1h30m",
            "2026-01-31T03:00:00Z",
            "2026-01-31T04:30:00Z",
        );
        let schedule: Schedule = "every 1m".parse().unwrap();
        assert_eq!(schedule.due(None), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn what_is_no_schedule_is_said() {
        for text in [
            "",
            "at night",
            "every 1s",
            "every",
            "* * * *",
            "61 * * * *",
            "every 9999999h",
        ] {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains("is no schedule"), "{error}");
            assert!(error.contains("every 6h"), "{error}");
        }
    }
}
