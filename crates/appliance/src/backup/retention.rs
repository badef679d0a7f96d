//! Which backups stay.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;

/// How many backups stay. Each rule keeps its own, and what one keeps stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// The newest.
    pub last: u32,
    /// The newest of each of the latest days that have one, UTC.
    pub daily: u32,
    /// The same for ISO weeks.
    pub weekly: u32,
    /// The same for months.
    pub monthly: u32,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep {
            last: 7,
            daily: 14,
            weekly: 8,
            monthly: 12,
        }
    }
}

impl Keep {
    /// Lets nothing go.
    pub const ALL: Keep = Keep {
        last: u32::MAX,
        daily: 0,
        weekly: 0,
        monthly: 0,
    };
}

/// The year and the number of the day, week or month in it.
type Period = fn(Timestamp) -> (i16, i16);

/// The indexes into `times` of those that no rule keeps. The newest always stays.
pub fn surplus(times: &[Timestamp], keep: &Keep) -> Vec<usize> {
    let mut newest_first: Vec<usize> = (0..times.len()).collect();
    newest_first.sort_by_key(|at| std::cmp::Reverse(times[*at]));
    let mut stays: BTreeSet<usize> = newest_first.iter().copied().take(1).collect();
    let last = usize::try_from(keep.last).unwrap_or(usize::MAX);
    stays.extend(newest_first.iter().copied().take(last));
    let periods: [(u32, Period); 3] = [
        (keep.daily, |time| {
            let date = time.to_zoned(TimeZone::UTC).date();
            (date.year(), date.day_of_year())
        }),
        (keep.weekly, |time| {
            let week = time.to_zoned(TimeZone::UTC).date().iso_week_date();
            (week.year(), week.week().into())
        }),
        (keep.monthly, |time| {
            let date = time.to_zoned(TimeZone::UTC).date();
            (date.year(), date.month().into())
        }),
    ];
    for (count, period) in periods {
        let mut seen = BTreeSet::new();
        for at in &newest_first {
            if seen.len() >= usize::try_from(count).unwrap_or(usize::MAX) {
                break;
            }
            if seen.insert(period(times[*at])) {
                stays.insert(*at);
            }
        }
    }
    (0..times.len()).filter(|at| !stays.contains(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(times: &[&str], keep: Keep, stays: &[&str]) {
        let parsed: Vec<Timestamp> = times.iter().map(|time| time.parse().unwrap()).collect();
        let surplus = surplus(&parsed, &keep);
        let left: Vec<&str> = times
            .iter()
            .enumerate()
            .filter(|(at, _)| !surplus.contains(at))
            .map(|(_, time)| *time)
            .collect();
        assert_eq!(left, stays);
    }

    #[test]
    fn each_rule_keeps_its_own() {
        let none = Keep {
            last: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
        };
        let times = [
            "2025-12-30T03:00:00Z",
            "2026-01-01T03:00:00Z",
            "2026-01-30T03:00:00Z",
            "2026-01-30T15:00:00Z",
            "2026-01-31T03:00:00Z",
            "2026-02-02T03:00:00Z",
        ];
        check(&[], none, &[]);
        check(&times, none, &times[5..]);
        check(&times, Keep { last: 2, ..none }, &times[4..]);
        check(&times, Keep { daily: 3, ..none }, &times[3..]);
        // the 2nd of February is a Monday; the 30th of December and the 1st of January share a week
        check(
            &times,
            Keep { weekly: 3, ..none },
            &[times[1], times[4], times[5]],
        );
        check(
            &times,
            Keep { monthly: 9, ..none },
            &[times[0], times[4], times[5]],
        );
        check(&times, Keep::ALL, &times);
        check(&times, Keep::default(), &times);
    }
}
