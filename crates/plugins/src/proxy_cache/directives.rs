//! `Cache-Control`, `Vary` and what else RFC 9111 makes of headers.

use std::time::UNIX_EPOCH;

use http::HeaderName;
use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, VARY};

use super::memory::Varied;
use crate::fields::Fields;

/// A number of seconds that is over any other; RFC 9111 section 1.2.2.
const FOREVER_S: u64 = 1 << 31;

/// The directives of one or several `Cache-Control` lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    /// Only what knows the status may store.
    pub(super) must_understand: bool,
    pub(super) only_if_cached: bool,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`: stale is never good enough.
    pub(super) must_revalidate: bool,
    pub(super) max_age: Option<u64>,
    pub(super) s_maxage: Option<u64>,
    pub(super) min_fresh: Option<u64>,
    /// Without a number: any.
    pub(super) max_stale: Option<u64>,
}

impl Directives {
    /// Reads all `Cache-Control` lines; what is not known is left out.
    pub(super) fn of(headers: &Fields) -> Directives {
        let mut found = Directives::default();
        for line in headers.get_all(&CACHE_CONTROL) {
            let line = String::from_utf8_lossy(line);
            for (name, value) in directives(&line) {
                found.note(&name.to_ascii_lowercase(), value);
            }
        }
        found
    }

    fn note(&mut self, name: &str, value: Option<&str>) {
        // the shortest of several, and a number that is none is over at once
        let shortest = |known: Option<u64>| {
            let seconds = value.and_then(seconds).unwrap_or(0);
            Some(known.map_or(seconds, |known| known.min(seconds)))
        };
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "must-understand" => self.must_understand = true,
            "only-if-cached" => self.only_if_cached = true,
            "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
            "max-age" => self.max_age = shortest(self.max_age),
            "s-maxage" => {
                self.s_maxage = shortest(self.s_maxage);
                self.must_revalidate = true;
            }
            "min-fresh" => self.min_fresh = Some(value.and_then(seconds).unwrap_or(FOREVER_S)),
            "max-stale" => {
                self.max_stale = Some(match value {
                    None => FOREVER_S,
                    Some(value) => seconds(value).unwrap_or(0),
                });
            }
            _ => {}
        }
    }
}

/// `name`, `name=value` and `name="value"`, separated by commas outside of quotes.
fn directives(line: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut quoted = false;
    let parts = line.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    parts.filter_map(|part| {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        let name = name.trim();
        let value = value.map(|value| value.trim().trim_matches('"'));
        (!name.is_empty()).then_some((name, value))
    })
}

fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(FOREVER_S).min(FOREVER_S))
}

/// A date as HTTP writes it, in seconds since 1970.
fn date_s(headers: &Fields, name: &HeaderName) -> Option<i64> {
    let mut values = headers.get_all(name);
    let (value, more) = (values.next()?, values.next());
    let text = std::str::from_utf8(value).ok().filter(|_| more.is_none())?;
    parse_date(text)
}

/// Source: RFC 9110 section 5.6.7.
fn parse_date(text: &str) -> Option<i64> {
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    let since = date.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

/// Whether a date that a client sent (`If-Modified-Since`) is not before one of the response.
pub(super) fn not_after(modified: &Fields, name: &HeaderName, since: &str) -> bool {
    let parsed = (date_s(modified, name), parse_date(since));
    matches!(parsed, (Some(modified), Some(since)) if modified <= since)
}

/// How long a response is fresh from its making on, seconds; `None` if it does not say.
pub(super) fn lifetime_s(headers: &Fields, directives: &Directives, now_ms: u64) -> Option<u64> {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return Some(seconds);
    }
    if !headers.contains(&EXPIRES) {
        return None;
    }
    // a date that is none is in the past
    let Some(expires) = date_s(headers, &EXPIRES) else {
        return Some(0);
    };
    let made = date_s(headers, &DATE).unwrap_or((now_ms / 1_000).cast_signed());
    Some(expires.saturating_sub(made).max(0).cast_unsigned())
}

/// How old a response is as it comes, seconds. Source: RFC 9111 section 4.2.3.
pub(super) fn age_s(headers: &Fields, now_ms: u64) -> u64 {
    let mut ages = headers.get_all(&AGE);
    let told = match (ages.next(), ages.next()) {
        (None, _) => 0,
        // an age that is none, or several: older than anything
        (Some(age), None) => std::str::from_utf8(age)
            .ok()
            .and_then(seconds)
            .unwrap_or(FOREVER_S),
        (Some(_), Some(_)) => FOREVER_S,
    };
    let now_s = (now_ms / 1_000).cast_signed();
    let apparent = date_s(headers, &DATE).map_or(0, |made| now_s.saturating_sub(made).max(0));
    told.max(apparent.cast_unsigned())
}

/// The headers that a response depends on, as the request has them; `None` if it depends on more
/// than headers.
pub(super) fn varied(response: &Fields, request: &Fields) -> Option<Vec<Varied>> {
    let mut varied: Vec<Varied> = Vec::new();
    for line in response.get_all(&VARY) {
        for name in String::from_utf8_lossy(line).split(',') {
            let name = name.trim();
            if name == "*" {
                return None;
            }
            if let Ok(name) = name.parse::<HeaderName>()
                && !varied.iter().any(|known| known.name == name)
            {
                varied.push(Varied::of(name, request));
            }
        }
    }
    varied.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
    Some(varied)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&'static str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            let value = HeaderValue::from_str(value).unwrap();
            fields.append(&HeaderName::from_static(name), &value);
        }
        fields
    }

    #[track_caller]
    fn check(line: &str, expected: Directives) {
        assert_eq!(
            Directives::of(&fields(&[("cache-control", line)])),
            expected,
            "{line}"
        );
    }

    #[test]
    fn directives_are_read() {
        let none = Directives::default;
        check("", none());
        check("public, immutable", none());
        check(
            "No-Store , no-cache=\"a, max-age=5\"",
            Directives {
                no_store: true,
                no_cache: true,
                ..none()
            },
        );
        check(
            "max-age=5,max-age=\"3\"",
            Directives {
                max_age: Some(3),
                ..none()
            },
        );
        check(
            "max-age=x",
            Directives {
                max_age: Some(0),
                ..none()
            },
        );
        check(
            "max-age=-1",
            Directives {
                max_age: Some(0),
                ..none()
            },
        );
        check(
            "max-age",
            Directives {
                max_age: Some(0),
                ..none()
            },
        );
        check(
            "max-age=99999999999999999999",
            Directives {
                max_age: Some(FOREVER_S),
                ..none()
            },
        );
        let shared = Directives {
            s_maxage: Some(7),
            must_revalidate: true,
            ..none()
        };
        check("S-MaxAge=7", shared);
        check(
            "max-stale, min-fresh=4",
            Directives {
                max_stale: Some(FOREVER_S),
                min_fresh: Some(4),
                ..none()
            },
        );
        check(
            "max-stale=2,only-if-cached",
            Directives {
                max_stale: Some(2),
                only_if_cached: true,
                ..none()
            },
        );
    }

    const NOON: &str = "Thu, 01 Jan 1970 12:00:00 GMT";
    const LATER: &str = "Thu, 01 Jan 1970 12:01:00 GMT";

    #[test]
    fn freshness_follows_the_headers() {
        let lifetime = |lines: &[(&'static str, &str)]| {
            let fields = fields(lines);
            lifetime_s(&fields, &Directives::of(&fields), 43_190_000)
        };
        assert_eq!(lifetime(&[]), None);
        assert_eq!(
            lifetime(&[("cache-control", "max-age=5"), ("expires", LATER)]),
            Some(5)
        );
        assert_eq!(
            lifetime(&[("cache-control", "max-age=5, s-maxage=6")]),
            Some(6)
        );
        assert_eq!(lifetime(&[("expires", LATER), ("date", NOON)]), Some(60));
        assert_eq!(lifetime(&[("expires", NOON)]), Some(10));
        assert_eq!(lifetime(&[("expires", NOON), ("date", LATER)]), Some(0));
        assert_eq!(lifetime(&[("expires", "0")]), Some(0));
        assert_eq!(lifetime(&[("expires", LATER), ("expires", LATER)]), Some(0));
    }

    #[test]
    fn a_response_may_be_old_as_it_comes() {
        let age = |lines: &[(&'static str, &str)]| age_s(&fields(lines), 43_260_000);
        assert_eq!(age(&[]), 0);
        assert_eq!(age(&[("date", NOON)]), 60);
        assert_eq!(age(&[("date", LATER), ("age", "7")]), 7);
        for none in ["7, 7", "-7", "7.0", "7;a=b", "x", ""] {
            assert_eq!(age(&[("age", none)]), FOREVER_S, "{none}");
        }
        assert_eq!(age(&[("age", "7"), ("age", "7")]), FOREVER_S);
        assert_eq!(age(&[("date", "Thu, 01 Jan 1970 13:00:00 GMT")]), 0);
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(parse_date(NOON), Some(43_200));
        assert_eq!(parse_date("Thu Jan  1 12:00:00 1970"), Some(43_200));
        for bad in [
            "",
            "GMT",
            "noon",
            "Thu, 01 Jan 1970 12:00:00",
            "Thu, 01 Jan 1970 12:00:00 CET",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read(
            line in "(max-age|s-maxage|max-stale|=|,|\"|[0-9]|é| ){0,12}",
            date in "(Thu|,|01|Jan|1970|12:00:00|GMT| |[0-9]){0,8}",
        ) {
            let Ok(line) = HeaderValue::from_bytes(line.as_bytes()) else {
                return Ok(());
            };
            let mut headers = Fields::new();
            headers.append(&CACHE_CONTROL, &line);
            headers.append(&EXPIRES, &HeaderValue::from_str(&date).unwrap());
            headers.append(&AGE, &line);
            let directives = Directives::of(&headers);
            prop_assert!(lifetime_s(&headers, &directives, 0).is_some());
            let _ = (age_s(&headers, 0), varied(&headers, &headers));
        }
    }
}
