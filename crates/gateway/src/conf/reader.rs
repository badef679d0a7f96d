//! Typed values out of settings; what cannot be read becomes a problem, and reading goes on.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::names::known;
use super::settings::Settings;

/// Reads properties one by one.
pub(super) struct Reader {
    pub(super) settings: Settings,
}

impl Reader {
    /// Whether `key` was set to something, other than by default.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.settings
            .get(key)
            .is_some_and(|setting| !setting.value.is_empty())
    }

    /// The value, else the default. Set to nothing means `None`, as in Kong.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let value = match self.settings.get(key) {
            Some(setting) => setting.value.clone(),
            None => {
                let known = known(key).expect("only known properties are read");
                known.default()?.into_owned()
            }
        };
        (!value.is_empty()).then_some(value)
    }

    /// Notes that `key` cannot stay as it is.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.settings.problem(key, message);
    }

    /// `on` or `true`; every other word is false, as in Kong, with a warning if it is not
    /// plainly the opposite.
    pub(super) fn flag(&mut self, key: &str) -> bool {
        match self.text(key).as_deref() {
            Some("on" | "true") => true,
            None | Some("off" | "false") => false,
            Some(_) => {
                self.settings
                    .warn(key, "is neither on nor off and counts as off");
                false
            }
        }
    }

    /// One of the given words; the first one stands in for anything else.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, options: &[(&str, T)]) -> T {
        let value = self.text(key).unwrap_or_default();
        if let Some((_, choice)) = options.iter().find(|(word, _)| *word == value) {
            return *choice;
        }
        let words: Vec<_> = options.iter().map(|(word, _)| *word).collect();
        self.problem(key, format!("must be one of {}", words.join(", ")));
        options[0].1
    }

    /// A whole number in `range`; its start stands in for anything else.
    pub(super) fn number<T>(&mut self, key: &str, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let value = self.text(key).unwrap_or_default();
        match value.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = (range.start(), range.end());
                self.problem(
                    key,
                    format!("must be a whole number from {least} to {most}"),
                );
                *least
            }
        }
    }

    /// The elements of a comma-separated list, without blanks; empty if unset.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|e| !e.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// A size in bytes in nginx's notation: `0`, `512`, `8k`, `10m`, `1g`.
    pub(super) fn bytes(&mut self, key: &str) -> u64 {
        let value = self.text(key).unwrap_or_else(|| "0".to_owned());
        match bytes(&value) {
            Some(bytes) => bytes,
            None => {
                self.problem(key, "must be a size such as 0, 512, 8k, 10m or 1g");
                0
            }
        }
    }

    /// A time above 0 in nginx's notation: `60`, `60s`, `500ms`, `1m`, `1h`, `1d`.
    pub(super) fn time(&mut self, key: &str) -> Duration {
        let value = self.text(key).unwrap_or_default();
        // nginx takes a second time here, which is a header to send
        let first = value.split_whitespace().next().unwrap_or_default();
        time(first)
            .filter(|time| !time.is_zero())
            .unwrap_or_else(|| {
                self.problem(key, "must be a time above 0 such as 60s, 500ms, 1m or 1h");
                Duration::from_secs(60)
            })
    }

    /// Addresses and networks; `unix:` counts for no TCP client and is left out.
    pub(super) fn networks(&mut self, key: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for element in self.list(key) {
            match (element.parse::<IpNet>(), element.parse::<IpAddr>()) {
                (Ok(network), _) => networks.push(network),
                (_, Ok(ip)) => networks.push(IpNet::from(ip)),
                _ if element == "unix:" => {}
                _ => self.problem(key, format!("{element:?} is neither an address nor a CIDR")),
            }
        }
        networks
    }
}

fn time(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = number.parse::<u64>().ok()?.checked_mul(unit_ms)?;
    (ms <= 365 * 86_400_000).then(|| Duration::from_millis(ms))
}

fn bytes(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
