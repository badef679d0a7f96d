//! Calendar windows: second, minute, hour, day, month and year in UTC.

use super::MessageError;
use crate::protobuf::{self, Fields};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A length of window, shortest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the lengths")]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Year,
}

impl Period {
    /// Every period, shortest first.
    pub const ALL: [Period; 6] = [
        Period::Second,
        Period::Minute,
        Period::Hour,
        Period::Day,
        Period::Month,
        Period::Year,
    ];

    /// The configuration field, such as `minute`.
    pub fn field(self) -> &'static str {
        ["second", "minute", "hour", "day", "month", "year"][self as usize]
    }

    /// The window that holds `now_ms`: its first millisecond, and the first one after it.
    pub fn window(self, now_ms: u64) -> Window {
        let fixed = |length_ms: u64| {
            let start_ms = now_ms - now_ms % length_ms;
            Window {
                start_ms,
                end_ms: start_ms + length_ms,
            }
        };
        match self {
            Period::Second => fixed(1_000),
            Period::Minute => fixed(60_000),
            Period::Hour => fixed(3_600_000),
            Period::Day => fixed(86_400_000),
            Period::Month | Period::Year => self.calendar(now_ms),
        }
    }

    fn calendar(self, now_ms: u64) -> Window {
        let now = Timestamp::from_millisecond(now_ms.cast_signed())
            .unwrap_or(Timestamp::UNIX_EPOCH)
            .to_zoned(TimeZone::UTC)
            .date();
        let (start, end) = match self {
            Period::Year => (now.first_of_year(), now.last_of_year()),
            _ => (now.first_of_month(), now.last_of_month()),
        };
        let ms = |at: DateTime| {
            at.to_zoned(TimeZone::UTC).map_or(0, |at| {
                at.timestamp().as_millisecond().max(0).cast_unsigned()
            })
        };
        let end = end.tomorrow().unwrap_or(end);
        Window {
            start_ms: ms(start.at(0, 0, 0, 0)),
            end_ms: ms(end.at(0, 0, 0, 0)),
        }
    }
}

/// How many are allowed in the window of each period, in the order of [`Period::ALL`]; `None` where
/// nothing is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Windows(pub [Option<u64>; Period::ALL.len()]);

impl Windows {
    /// As [`Request::windows`](super::Request::windows) holds it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (field, limit) in (1..).zip(self.0) {
            if let Some(limit) = limit {
                protobuf::number(out, field, limit);
            }
        }
    }

    /// Reads it; unknown fields are skipped.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Windows, MessageError> {
        let mut windows = Windows::default();
        let mut fields = Fields(bytes);
        while let Some((field, value)) = fields.next()? {
            if let Some(limit) = (field as usize)
                .checked_sub(1)
                .and_then(|at| windows.0.get_mut(at))
            {
                *limit = Some(value.varint(field)?);
            }
        }
        Ok(windows)
    }
}

/// A span of time, milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first millisecond.
    pub start_ms: u64,
    /// The first millisecond after it.
    pub end_ms: u64,
}

impl Window {
    /// Whole seconds until it ends, at least 1.
    pub fn reset_s(self, now_ms: u64) -> u64 {
        self.end_ms.saturating_sub(now_ms).div_ceil(1_000).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(period: Period, now: &str, start: &str, end: &str) {
        let ms = |text: &str| {
            text.parse::<Timestamp>()
                .unwrap()
                .as_millisecond()
                .cast_unsigned()
        };
        let want = Window {
            start_ms: ms(start),
            end_ms: ms(end),
        };
        assert_eq!(period.window(ms(now)), want);
        assert_eq!(
            period.window(want.start_ms),
            want,
            "the first millisecond belongs to it"
        );
        assert_ne!(period.window(want.end_ms), want, "the end does not");
    }

    #[test]
    fn windows_follow_the_utc_calendar() {
        let now = "2024-02-29T23:59:58.123Z";
        check(
            Period::Second,
            now,
            "2024-02-29T23:59:58Z",
            "2024-02-29T23:59:59Z",
        );
        check(
            Period::Minute,
            now,
            "2024-02-29T23:59:00Z",
            "2024-03-01T00:00:00Z",
        );
        check(
            Period::Hour,
            now,
            "2024-02-29T23:00:00Z",
            "2024-03-01T00:00:00Z",
        );
        check(
            Period::Day,
            now,
            "2024-02-29T00:00:00Z",
            "2024-03-01T00:00:00Z",
        );
        check(
            Period::Month,
            now,
            "2024-02-01T00:00:00Z",
            "2024-03-01T00:00:00Z",
        );
        check(
            Period::Year,
            now,
            "2024-01-01T00:00:00Z",
            "2025-01-01T00:00:00Z",
        );
        check(
            Period::Month,
            "2023-12-31T12:00:00Z",
            "2023-12-01T00:00:00Z",
            "2024-01-01T00:00:00Z",
        );
    }

    #[test]
    fn reset_is_rounded_up_and_never_zero() {
        let window = Window {
            start_ms: 0,
            end_ms: 60_000,
        };
        assert_eq!(window.reset_s(0), 60);
        assert_eq!(window.reset_s(59_001), 1);
        assert_eq!(window.reset_s(60_500), 1);
    }

    proptest! {
        /// From 1970 to 9999.
        #[test]
        fn windows_are_aligned_and_leave_no_gap(now_ms in 0_u64..253_000_000_000_000) {
            let mut shorter: Option<Window> = None;
            for period in Period::ALL {
                let window = period.window(now_ms);
                prop_assert!((window.start_ms..window.end_ms).contains(&now_ms));
                // every millisecond of it says the same, and the next begins where it ends
                prop_assert_eq!(period.window(window.start_ms), window);
                prop_assert_eq!(period.window(window.end_ms - 1), window);
                prop_assert_eq!(period.window(window.end_ms).start_ms, window.end_ms);
                let whole_s = (window.end_ms - window.start_ms) / 1_000;
                prop_assert!((1..=whole_s).contains(&window.reset_s(now_ms)));
                // on the calendar: a longer window begins and ends with a shorter one
                if let Some(shorter) = shorter {
                    prop_assert!(window.start_ms <= shorter.start_ms);
                    prop_assert!(shorter.end_ms <= window.end_ms);
                }
                let start = Timestamp::from_millisecond(window.start_ms.cast_signed()).unwrap();
                let start = start.to_zoned(TimeZone::UTC);
                prop_assert_eq!(start.subsec_nanosecond(), 0);
                prop_assert!(period < Period::Minute || start.second() == 0);
                prop_assert!(period < Period::Hour || start.minute() == 0);
                prop_assert!(period < Period::Day || start.hour() == 0);
                prop_assert!(period < Period::Month || start.day() == 1);
                prop_assert!(period < Period::Year || start.month() == 1);
                shorter = Some(window);
            }
        }
    }
}
