//! From what is written to what is meant.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

use super::problem::{ConfigError, Problem};
use super::raw::{At, Entries, Names, Raw, RawCluster, RawLimit, RawRedis, RawTls};
use super::{ANSWER_MS, ClusterSection, Config, RedisSection, Source, TlsSection};
use crate::node::Secret;
use crate::rate_limit::bucket::{Refill, Rule};
use crate::rate_limit::types::{BucketType, Limit, Override, Unreachable};

const TOKENS_MAX: i64 = i32::MAX as i64;
/// Milliseconds of 31 days.
const INTERVAL_MAX: i64 = 31 * 24 * 3600 * 1000;
const ANSWER_MS_MAX: i64 = 10_000;
/// Bytes that a compiled pattern may have.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Levels of nesting that a file may have; ours have four.
const DEPTH_MAX: usize = 32;
/// Keys and values that a file may have.
const NODES_MAX: usize = 5_000_000;
/// Names at the top that limitd knows and we have no use for.
const LIMITD_ONLY: [&str; 6] = [
    "db",
    "log_level",
    "log_file",
    "latency_buckets",
    "configurator",
    "profiler",
];
const OURS: [&str; 6] = ["port", "hostname", "tls", "cluster", "redis", "buckets"];

pub(super) fn config(sources: &[Source], unix_ms: u64) -> Result<Config, ConfigError> {
    let mut config = Config {
        port: None,
        hostname: None,
        tls: None,
        cluster: None,
        redis: None,
        types: Vec::new(),
        warnings: Vec::new(),
    };
    let mut problems = Vec::new();
    let mut has_buckets = false;
    let mut types: Vec<BucketType> = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let mut reader = Reader {
            path: &source.path,
            unix_ms,
            problems: &mut problems,
        };
        let Some(raw) = reader.yaml::<Option<Raw>>(&source.text) else {
            continue;
        };
        reader.unused(&source.text, &mut config.warnings);
        let Some(raw) = raw else { continue };
        if at == 0 {
            config.port = raw.port.and_then(|port| reader.port(&port));
            config.hostname = raw.hostname.and_then(|name| reader.hostname(&name));
            config.tls = raw.tls.map(|tls| reader.tls(tls.value));
            if let (Some(_), Some(redis)) = (&raw.cluster, &raw.redis) {
                let message = "buckets are in Redis or on the nodes of cluster, not both";
                reader.problem(line(redis), message);
            }
            config.cluster = raw.cluster.and_then(|cluster| reader.cluster(cluster));
            config.redis = raw.redis.and_then(|redis| reader.redis(redis.value));
        }
        has_buckets |= raw.buckets.is_some();
        for (name, limit) in raw.buckets.map(|buckets| buckets.0).unwrap_or_default() {
            if let Some(of) = reader.bucket_type(name, limit) {
                types.retain(|known| known.name != of.name);
                types.push(of);
            }
        }
    }
    if problems.is_empty() && !has_buckets {
        let path = sources.first().map(|s| s.path.clone()).unwrap_or_default();
        problems.push(Problem {
            path,
            line: 0,
            message: "there is no section buckets, which names the bucket types".to_owned(),
        });
    }
    config.types = types;
    match problems.is_empty() {
        true => Ok(config),
        false => Err(ConfigError::Problems(problems)),
    }
}

/// Reads one file and notes its problems.
struct Reader<'a> {
    path: &'a Path,
    unix_ms: u64,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, line: u64, message: impl Into<String>) {
        let (path, message) = (self.path.to_owned(), message.into());
        self.problems.push(Problem {
            path,
            line,
            message,
        });
    }

    fn yaml<T: serde::de::DeserializeOwned>(&mut self, text: &str) -> Option<T> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: DEPTH_MAX,
                max_nodes: NODES_MAX,
                max_events: 2 * NODES_MAX,
            },
            with_snippet: false,
        };
        // limitd's examples tag dates so, and the parser gives no text for this one tag.
        let text = text.replace("!!timestamp ", "");
        match serde_saphyr::from_str_with_options(&text, options) {
            Ok(value) => Some(value),
            Err(error) => {
                let error = error.without_snippet();
                let line = error.location().map_or(0, |place| place.line());
                let message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
                let message = message.lines().next().unwrap_or_default();
                let message = message.split(" at line ").next().unwrap_or(message);
                self.problem(line, message);
                None
            }
        }
    }

    /// Names at the top of the file that nothing is done with.
    fn unused(&mut self, text: &str, warnings: &mut Vec<Problem>) {
        let names = self.yaml::<Option<Names>>(text).flatten();
        for (name, _) in names.map(|names| names.0).unwrap_or_default() {
            if OURS.contains(&name.value.as_str()) {
                continue;
            }
            let known = LIMITD_ONLY.contains(&name.value.as_str());
            let why = if known {
                "is limitd's and not used here"
            } else {
                "is unknown and ignored"
            };
            warnings.push(Problem {
                path: self.path.to_owned(),
                line: line(&name),
                message: format!("{} {why}", name.value),
            });
        }
    }

    /// The number, if it is in the range.
    fn number(&mut self, name: &str, value: &At<i64>, min: i64, max: i64) -> Option<u32> {
        if (min..=max).contains(&value.value) {
            return u32::try_from(value.value).ok();
        }
        let message = format!("{name} is {}, it has to be {min} to {max}", value.value);
        self.problem(line(value), message);
        None
    }

    fn port(&mut self, port: &At<i64>) -> Option<u16> {
        let number = self.number("port", port, 1, 65_535)?;
        u16::try_from(number).ok()
    }

    fn hostname(&mut self, name: &At<String>) -> Option<IpAddr> {
        if name.value == "localhost" {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        let address = name.value.parse().ok();
        if address.is_none() {
            let message = format!("hostname {:?} is no address of a machine", name.value);
            self.problem(line(name), message);
        }
        address
    }

    /// A path in the file is relative to the file.
    fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn tls(&self, raw: RawTls) -> TlsSection {
        TlsSection {
            certificate: self.beside(&raw.certificate),
            key: self.beside(&raw.key),
            required: raw.required,
        }
    }

    fn cluster(&mut self, at: At<RawCluster>) -> Option<ClusterSection> {
        let raw = at.value;
        let before = self.problems.len();
        let mut nodes = BTreeMap::new();
        for (name, address) in raw.nodes.0 {
            let port = address.value.rsplit_once(':');
            let port = port.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
            if port.is_none_or(|(host, port)| host.is_empty() || port == 0) {
                let message = format!("{:?} is not host:port", address.value);
                self.problem(line(&address), message);
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            if name.value.is_empty() || !name.value.chars().all(allowed) {
                let message = format!(
                    "node {:?}: a name has letters, digits, - and . only, as in its certificate",
                    name.value
                );
                self.problem(line(&name), message);
            }
            nodes.insert(name.value, address.value);
        }
        if !nodes.contains_key(&raw.node.value) {
            let message = format!("node {:?} is not among the nodes", raw.node.value);
            self.problem(line(&raw.node), message);
        }
        let answer_ms = match &raw.answer_ms {
            Some(value) => self
                .number("answer_ms", value, 1, ANSWER_MS_MAX)
                .unwrap_or(0),
            None => ANSWER_MS,
        };
        (self.problems.len() == before).then(|| ClusterSection {
            answer_ms,
            node: raw.node.value,
            nodes,
            ca: self.beside(&raw.ca),
            certificate: self.beside(&raw.certificate),
            key: self.beside(&raw.key),
        })
    }

    fn redis(&mut self, raw: RawRedis) -> Option<RedisSection> {
        let address = raw.address.value.rsplit_once(':');
        let address = address.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let Some((host, port)) = address.filter(|(host, port)| !host.is_empty() && *port > 0)
        else {
            let message = format!("{:?} is not host:port", raw.address.value);
            self.problem(line(&raw.address), message);
            return None;
        };
        let answer_ms = match &raw.answer_ms {
            Some(value) => self.number("answer_ms", value, 1, ANSWER_MS_MAX)?,
            None => ANSWER_MS,
        };
        Some(RedisSection {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            username: raw.username,
            password: raw.password.map(Secret),
            database: raw.database,
            ca: raw.ca.map(|ca| self.beside(&ca)),
            answer_within: Duration::from_millis(answer_ms.into()),
        })
    }

    fn bucket_type(&mut self, name: At<String>, at: At<RawLimit>) -> Option<BucketType> {
        let title = name.value.clone();
        for (what, misplaced) in [("match", &at.value.pattern), ("until", &at.value.until)] {
            if let Some(value) = misplaced {
                let message = format!("{title}: {what} belongs to an override");
                self.problem(line(value), message);
            }
        }
        let unreachable = match &at.value.when_unreachable {
            None => Unreachable::default(),
            Some(value) => match value.value.as_str() {
                "local" => Unreachable::Local,
                "refuse" => Unreachable::Refuse,
                other => {
                    let message = format!(
                        "{title}: when_unreachable is {other:?}, it has to be local or refuse"
                    );
                    self.problem(line(value), message);
                    Unreachable::default()
                }
            },
        };
        let limit = self.limit(&title, line(&name), &at.value);
        let Entries(exceptions) = at.value.exceptions.unwrap_or(Entries(Vec::new()));
        let mut overrides = Vec::new();
        for (name, exception) in exceptions {
            overrides.extend(self.exception(&title, name, exception.value));
        }
        Some(BucketType::new(title, unreachable, limit?, overrides))
    }

    fn exception(&mut self, of: &str, name: At<String>, raw: RawLimit) -> Option<Override> {
        let title = format!("{of}, override {}", name.value);
        if raw.exceptions.is_some() {
            self.problem(
                line(&name),
                format!("{title}: it cannot have overrides itself"),
            );
        }
        if let Some(value) = &raw.when_unreachable {
            let message = format!("{title}: when_unreachable belongs to the bucket type");
            self.problem(line(value), message);
        }
        let mut limit = self.limit(&title, line(&name), &raw)?;
        let pattern = match &raw.pattern {
            None => None,
            Some(text) => Some(self.pattern(&title, text)?),
        };
        if let Some(until) = &raw.until {
            let until_ms = self.until(&title, until)?;
            limit.until_ms = Some(until_ms);
            if until_ms <= self.unix_ms {
                return None;
            }
        }
        let name = name.value;
        Some(Override {
            name,
            pattern,
            limit,
        })
    }

    fn limit(&mut self, title: &str, at: u64, raw: &RawLimit) -> Option<Limit> {
        let before = self.problems.len();
        let rate = self.rate(title, at, raw);
        let size = raw.size.as_ref();
        let size =
            size.and_then(|size| self.number(&format!("{title}: size"), size, 0, TOKENS_MAX));
        let is = |flag: &Option<At<bool>>| flag.as_ref().is_some_and(|flag| flag.value);
        let unlimited = is(&raw.unlimited);
        if unlimited && raw.size.is_none() {
            let message = format!("{title}: an unlimited bucket needs a size to tell clients");
            self.problem(at, message);
        } else if raw.size.is_none() && rate.is_none() && self.problems.len() == before {
            let message = format!(
                "{title}: a size or a rate is needed (per_second, per_minute, per_hour, per_day)"
            );
            self.problem(at, message);
        }
        if is(&raw.fixed_window) && rate.is_none() {
            let message = format!("{title}: fixed_window needs a rate");
            self.problem(at, message);
        }
        if self.problems.len() > before {
            return None;
        }
        let refill = match rate {
            None => Refill::Never,
            Some((tokens, every_ms)) if is(&raw.fixed_window) => {
                Refill::Window { tokens, every_ms }
            }
            Some((tokens, every_ms)) => Refill::Drip { tokens, every_ms },
        };
        let size = size.or(rate.map(|(tokens, _)| tokens))?;
        Some(Limit {
            rule: Rule { size, refill },
            unlimited,
            until_ms: None,
        })
    }

    /// Tokens and the milliseconds in which they come.
    fn rate(&mut self, title: &str, at: u64, raw: &RawLimit) -> Option<(u32, u32)> {
        const SECOND: u32 = 1000;
        let all = [
            ("per_second", &raw.per_second, SECOND),
            ("per_minute", &raw.per_minute, 60 * SECOND),
            ("per_hour", &raw.per_hour, 3600 * SECOND),
            ("per_day", &raw.per_day, 86_400 * SECOND),
            ("per_interval", &raw.per_interval, 0),
        ];
        let given = |(name, value, ms)| Option::as_ref(value).map(|value| (name, value, ms));
        let given: Vec<(&str, &At<i64>, u32)> = all.into_iter().filter_map(given).collect();
        if let [_, (_, second, _), ..] = given[..] {
            let names: Vec<_> = given.iter().map(|(name, ..)| *name).collect();
            let message = format!("{title}: only one of {} may be given", names.join(", "));
            self.problem(line(second), message);
            return None;
        }
        let Some((name, tokens, ms)) = given.first() else {
            if let Some(interval) = &raw.interval {
                let message = format!("{title}: interval needs per_interval");
                self.problem(line(interval), message);
            }
            return None;
        };
        let tokens = self.number(&format!("{title}: {name}"), tokens, 1, TOKENS_MAX);
        let every_ms = match (&raw.interval, *name) {
            (Some(interval), "per_interval") => {
                self.number(&format!("{title}: interval"), interval, 1, INTERVAL_MAX)?
            }
            (None, "per_interval") => {
                self.problem(
                    at,
                    format!("{title}: per_interval needs interval, in milliseconds"),
                );
                return None;
            }
            (Some(interval), _) => {
                let message = format!("{title}: interval belongs to per_interval, not to {name}");
                self.problem(line(interval), message);
                return None;
            }
            (None, _) => *ms,
        };
        Some((tokens?, every_ms))
    }

    /// A regular expression, also in JavaScript's form `/…/i`.
    fn pattern(&mut self, title: &str, text: &At<String>) -> Option<Regex> {
        let slashed = text
            .value
            .strip_prefix('/')
            .and_then(|rest| rest.rsplit_once('/'));
        let (pattern, flags) = slashed.unwrap_or((&text.value, ""));
        let pattern = pattern.replace("\\/", "/");
        let mut builder = RegexBuilder::new(&pattern);
        builder.size_limit(PATTERN_BYTES_MAX);
        for flag in flags.chars() {
            match flag {
                'i' => _ = builder.case_insensitive(true),
                'm' => _ = builder.multi_line(true),
                's' => _ = builder.dot_matches_new_line(true),
                'u' | 'g' => {}
                other => {
                    let message =
                        format!("{title}: match has the flag {other:?}, known are i, m, s, u");
                    self.problem(line(text), message);
                    return None;
                }
            }
        }
        match builder.build() {
            Ok(regex) => Some(regex),
            Err(error) => {
                let error = error.to_string();
                let error = error.lines().last().unwrap_or_default();
                let message = format!("{title}: match {:?} cannot be used: {error}", text.value);
                self.problem(line(text), message);
                None
            }
        }
    }

    /// Unix milliseconds of a date or time, in UTC where it has no offset.
    fn until(&mut self, title: &str, text: &At<String>) -> Option<u64> {
        let utc = |time: jiff::civil::DateTime| {
            let zoned = time.to_zoned(jiff::tz::TimeZone::UTC).ok();
            zoned.map(|zoned| zoned.timestamp())
        };
        let value = text.value.trim();
        let time = value.parse::<jiff::Timestamp>().ok();
        let time = time.or_else(|| utc(value.parse().ok()?));
        let Some(time) = time else {
            let message = format!(
                "{title}: until {value:?} is no time; write 2030-01-31 or 2030-01-31T12:00:00Z"
            );
            self.problem(line(text), message);
            return None;
        };
        Some(u64::try_from(time.as_millisecond()).unwrap_or(0))
    }
}

fn line<T>(at: &At<T>) -> u64 {
    at.referenced.line()
}
