//! Buckets that outlive a restart: those that take long to fill, in a file.
//!
//! A bucket that is full again within the hour may be forgotten; one of a day's tokens may not, or a
//! restart would hand out a day's worth again. What comes back is never fuller than what was
//! written would be by now; what was taken since the last writing before a crash is forgiven.

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::bucket::{Now, Refill, Rule};
use super::limits::Limits;

/// Buckets that are full sooner are not kept.
pub(super) const LEAST_MS: u64 = 3_600_000;
/// The first line of the file.
const HEAD: &str = "{\"sallyport_rate_limit_snapshot\":1}";

/// A bucket in the file: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Name of its type.
    pub(super) bucket: String,
    /// Its key, base64.
    pub(super) key: String,
    /// Whole tokens in it.
    pub(super) remaining: u32,
    /// When it is full, Unix seconds; 0 if never by itself.
    pub(super) reset: u64,
}

impl Kept {
    pub(super) fn new(bucket: &str, key: &[u8], remaining: u32, reset: u64) -> Kept {
        Kept {
            bucket: bucket.to_owned(),
            key: STANDARD.encode(key),
            remaining,
            reset,
        }
    }

    /// The bytes of its key; nothing if the line was edited to none.
    pub(super) fn key(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.key).ok()
    }

    /// Tokens that are still missing in it under a rule, which may have changed since.
    pub(super) fn missing(&self, rule: &Rule, now: Now) -> u32 {
        let gone = rule.size.saturating_sub(self.remaining);
        let left_ms = self.reset.saturating_mul(1_000).saturating_sub(now.unix_ms);
        match rule.refill {
            Refill::Never => gone,
            Refill::Window { .. } if left_ms == 0 => 0,
            Refill::Window { .. } => gone,
            Refill::Drip { tokens, every_ms } => {
                let missing = u128::from(left_ms) * u128::from(tokens);
                let missing = missing.div_ceil(u128::from(every_ms.max(1)));
                u32::try_from(missing).unwrap_or(u32::MAX).min(gone)
            }
        }
    }
}

/// Whether buckets of a rule are kept.
pub(super) fn is_kept(rule: &Rule) -> bool {
    match rule.refill {
        Refill::Never => true,
        Refill::Window { every_ms, .. } => u64::from(every_ms) >= LEAST_MS,
        Refill::Drip { tokens, every_ms } => {
            let full_ms = u64::from(rule.size) * u64::from(every_ms) / u64::from(tokens.max(1));
            full_ms >= LEAST_MS
        }
    }
}

/// Writes the buckets of `limits` that are kept; how many. The file is the old one or the new one.
pub(super) fn write(limits: &Limits, path: &Path) -> std::io::Result<usize> {
    let kept = limits.kept();
    let new = path.with_extension("new");
    _ = fs::remove_file(&new); // of a run that was cut short
    let mut options = fs::OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let mut file = BufWriter::new(file);
    writeln!(file, "{HEAD}")?;
    for kept in &kept {
        serde_json::to_writer(&mut file, kept)?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    file.get_ref().sync_all()?;
    fs::rename(&new, path)?;
    Ok(kept.len())
}

/// Reads a file into `limits`; how many buckets. No file is none. Lines that are none are counted.
pub(super) fn read(limits: &Limits, path: &Path) -> std::io::Result<(usize, usize)> {
    let file = match fs::File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(error),
    };
    let mut lines = file.lines();
    match lines.next().transpose()? {
        Some(head) if head == HEAD => {}
        _ => {
            return Err(std::io::Error::other(
                "it is no snapshot of buckets of this build",
            ));
        }
    }
    let (mut restored, mut bad) = (0, 0);
    for line in lines {
        let kept = serde_json::from_str::<Kept>(&line?).ok();
        match kept.map(|kept| limits.restore(&kept)) {
            Some(true) => restored += 1,
            _ => bad += 1,
        }
    }
    Ok((restored, bad))
}

#[cfg(test)]
mod tests {
    use sallyport_wire::rate_limit::{Body, Id, Method, Request};

    use super::super::limits::Answer;
    use super::super::types::{BucketType, Limit, Unreachable};
    use super::*;

    fn drip(size: u32, tokens: u32, every_ms: u32) -> Rule {
        Rule {
            size,
            refill: Refill::Drip { tokens, every_ms },
        }
    }

    #[test]
    fn what_dripped_in_meanwhile_is_counted() {
        let at = |unix_ms| Now { ms: 0, unix_ms };
        let kept = |remaining, reset| Kept::new("day", b"k", remaining, reset);
        let rule = drip(100, 100, 86_400_000);
        // 40 missing at second 1,000: full at 1,000 + 40 * 864
        let day = kept(60, 1_000 + 40 * 864);
        assert_eq!(day.missing(&rule, at(1_000_000)), 40);
        assert_eq!(day.missing(&rule, at(1_000_000 + 864_000 * 10)), 30);
        assert_eq!(day.missing(&rule, at(1_000_000 + 864_000 * 40)), 0);
        assert_eq!(day.missing(&rule, at(u64::MAX)), 0);
        // the clock went back, or the size shrank: never more than was missing
        assert_eq!(day.missing(&rule, at(0)), 40);
        assert_eq!(day.missing(&drip(50, 50, 86_400_000), at(0)), 0);
        let never = Rule {
            size: 3,
            refill: Refill::Never,
        };
        assert_eq!(kept(1, 0).missing(&never, at(5)), 2);
        let window = Rule {
            size: 9,
            refill: Refill::Window {
                tokens: 9,
                every_ms: 3_600_000,
            },
        };
        assert_eq!(kept(2, 3_600).missing(&window, at(3_599_999)), 7);
        assert_eq!(kept(2, 3_600).missing(&window, at(3_600_000)), 0);
    }

    #[test]
    fn only_what_takes_long_is_kept() {
        assert!(is_kept(&drip(100, 100, 86_400_000)));
        assert!(is_kept(&drip(7_200, 1, 1_000)));
        assert!(!is_kept(&drip(10, 5, 1_000)));
        assert!(is_kept(&Rule {
            size: 3,
            refill: Refill::Never
        }));
    }

    #[test]
    fn buckets_come_back_from_the_file() {
        let types = || {
            let of = |name: &str, rule| {
                let limit = Limit {
                    rule,
                    unlimited: false,
                    until_ms: None,
                };
                BucketType::new(name.to_owned(), Unreachable::Local, limit, Vec::new())
            };
            let never = Rule {
                size: 3,
                refill: Refill::Never,
            };
            vec![
                of("fixed", never),
                of("fast", drip(10, 10, 1_000)),
                of("day", drip(100, 100, 86_400_000)),
            ]
        };
        let take = |limits: &Limits, bucket: &str, count: i32| {
            let request = Request {
                id: Id::Text(b"1"),
                bucket: bucket.as_bytes(),
                key: b"\xffkey",
                method: Method::Take,
                count: Some(count),
                all: false,
                skip_response: false,
                lease: 0,
                windows: b"",
            };
            match limits.answer(&limits.types(), &request, limits.now()) {
                Answer::Now(Body::Take(taken), _) => (taken.conformant, taken.level.remaining),
                other => panic!("{other:?}"),
            }
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("buckets.snapshot");
        let first = Limits::new(types(), 100);
        assert_eq!(read(&first, &path).unwrap(), (0, 0));
        take(&first, "fixed", 2);
        take(&first, "fast", 9);
        take(&first, "day", 40);
        assert_eq!(write(&first, &path).unwrap(), 2);
        let second = Limits::new(types(), 100);
        assert_eq!(read(&second, &path).unwrap(), (2, 0));
        assert_eq!(take(&second, "fixed", 2), (false, 1));
        assert_eq!(take(&second, "day", 1), (true, 59));
        assert!(take(&second, "fast", 10).0);
        // a type that is gone, and lines that are none
        let third = Limits::new(types().split_off(2), 100);
        fs::write(&path, fs::read_to_string(&path).unwrap() + "rubbish\n{}\n").unwrap();
        assert_eq!(read(&third, &path).unwrap(), (1, 3));
        fs::write(&path, "rubbish").unwrap();
        assert!(read(&third, &path).is_err());
    }
}
