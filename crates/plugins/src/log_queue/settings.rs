//! The record `queue` of plugins. Source: Kong's `kong/tools/queue_schema.lua`.

use std::time::Duration;

use sallyport_model::schema::{Field, Record};
use serde::Deserialize;
use serde_json::{Value, json};

use super::core::Limits;

/// The field `queue` with Kong's defaults; `batch` is that of `max_batch_size`.
pub(crate) fn queue_field(batch: usize) -> Field {
    let record = Record::new([
        Field::integer("max_batch_size")
            .between(1, 1_000_000)
            .default(json!(batch))
            .about("Most entries that are sent together."),
        Field::number("max_coalescing_delay")
            .between(0, 3600)
            .default(json!(1))
            .about("How long the first entry of a batch waits for others, seconds."),
        Field::integer("max_entries")
            .between(1, 1_000_000)
            .default(json!(10_000))
            .about("Most entries that wait; beyond it the oldest are dropped."),
        Field::integer("max_bytes")
            .check(above_zero)
            .about("Most bytes that wait; beyond it the oldest entries are dropped."),
        Field::number("max_retry_time").default(json!(60)).about(
            "How long a batch is tried again before it is dropped, seconds; -1: not at all.",
        ),
        Field::number("initial_retry_delay")
            .check(delay)
            .default(json!(0.01))
            .about("The pause after the first failure, seconds; it doubles with each further one."),
        Field::number("max_retry_delay")
            .check(delay)
            .default(json!(60))
            .about("The longest pause between two tries, seconds."),
        Field::integer("concurrency_limit")
            .one_of_numbers(&[-1, 1])
            .default(json!(1))
            .about("1: batch after batch. -1: every entry on its own, beside the others."),
    ]);
    Field::record("queue", record).required()
}

fn above_zero(bytes: &Value) -> Result<(), String> {
    match bytes.as_i64() {
        Some(bytes) if bytes <= 0 => Err("value must be greater than 0".to_owned()),
        _ => Ok(()),
    }
}

/// Kong's bounds, which are no whole numbers.
fn delay(seconds: &Value) -> Result<(), String> {
    match seconds.as_f64() {
        Some(seconds) if !(0.001..=1_000_000.0).contains(&seconds) => {
            Err("value should be between 0.001 and 1000000".to_owned())
        }
        _ => Ok(()),
    }
}

/// The record, and the older fields beside it that still act.
#[derive(Debug, Deserialize)]
pub(crate) struct QueueConfig {
    #[serde(default)]
    queue: Queue,
    queue_size: Option<u64>,
    flush_timeout: Option<f64>,
    batch_span_count: Option<u64>,
    batch_flush_delay: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
struct Queue {
    max_batch_size: Option<usize>,
    max_coalescing_delay: Option<f64>,
    max_entries: Option<usize>,
    max_bytes: Option<usize>,
    max_retry_time: Option<f64>,
    initial_retry_delay: Option<f64>,
    max_retry_delay: Option<f64>,
    concurrency_limit: Option<i64>,
}

impl QueueConfig {
    /// What Kong makes of the record and of the older fields: these count unless they have the
    /// defaults of old.
    pub(crate) fn limits(&self) -> Limits {
        let Queue {
            max_batch_size,
            max_coalescing_delay,
            max_entries,
            max_bytes,
            max_retry_time,
            initial_retry_delay,
            max_retry_delay,
            concurrency_limit,
        } = self.queue;
        let older = |value: Option<u64>, default| value.filter(|value| *value != default);
        let size = older(self.queue_size, 1).or(older(self.batch_span_count, 200));
        let older = |value: Option<f64>, default| value.filter(|value| *value != default);
        let delay = older(self.flush_timeout, 2.0).or(older(self.batch_flush_delay, 3.0));
        let retry_time = max_retry_time.unwrap_or(60.0);
        Limits {
            batch_entries_max: size
                .and_then(|size| usize::try_from(size).ok())
                .or(max_batch_size)
                .unwrap_or(1)
                .max(1),
            coalescing_delay: seconds(delay.or(max_coalescing_delay).unwrap_or(1.0)),
            entries_max: max_entries.unwrap_or(10_000).max(1),
            bytes_max: max_bytes,
            retry_time: (retry_time >= 0.0).then(|| seconds(retry_time)),
            retry_delay: seconds(initial_retry_delay.unwrap_or(0.01)),
            retry_delay_max: seconds(max_retry_delay.unwrap_or(60.0)),
            concurrent: concurrency_limit == Some(-1),
        }
    }
}

/// Never more than some days: what is far beyond is no different.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 1_000_000.0))
}

/// A number of milliseconds, at least one.
pub(crate) fn milliseconds(number: Option<f64>, default: f64) -> Duration {
    let number = number.unwrap_or(default).clamp(1.0, 2_147_483_646.0);
    Duration::from_millis(number as u64)
}

/// The queue of a plugin that has no setting for it: what waits goes out at once, together.
pub(crate) fn queue_limits(batch: usize, retry_time: Option<Duration>) -> Limits {
    Limits {
        batch_entries_max: batch,
        coalescing_delay: Duration::ZERO,
        entries_max: 10_000,
        bytes_max: Some(16 << 20),
        retry_time,
        retry_delay: Duration::from_millis(10),
        retry_delay_max: Duration::from_secs(1),
        concurrent: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn limits(config: Value) -> Limits {
        QueueConfig::deserialize(config).unwrap().limits()
    }

    #[test]
    fn defaults_are_those_of_kong() {
        let expected = Limits {
            batch_entries_max: 1,
            coalescing_delay: Duration::from_secs(1),
            entries_max: 10_000,
            bytes_max: None,
            retry_time: Some(Duration::from_secs(60)),
            retry_delay: Duration::from_millis(10),
            retry_delay_max: Duration::from_secs(60),
            concurrent: false,
        };
        assert_eq!(limits(json!({"queue": {}})), expected);
        assert_eq!(limits(json!({})), expected);
    }

    #[test]
    fn older_fields_count_unless_they_are_the_old_defaults() {
        let batch = |config| limits(config).batch_entries_max;
        let queue = json!({"max_batch_size": 7});
        assert_eq!(batch(json!({"queue": queue, "queue_size": 1})), 7);
        assert_eq!(batch(json!({"queue": queue, "queue_size": 5})), 5);
        assert_eq!(batch(json!({"queue": queue, "batch_span_count": 200})), 7);
        assert_eq!(batch(json!({"queue": queue, "batch_span_count": 9})), 9);
        let delay = |config| limits(config).coalescing_delay;
        assert_eq!(delay(json!({"flush_timeout": 2})), Duration::from_secs(1));
        assert_eq!(
            delay(json!({"flush_timeout": 0.5})),
            Duration::from_millis(500)
        );
        assert_eq!(
            limits(json!({"queue": {"max_retry_time": -1}})).retry_time,
            None
        );
        assert!(limits(json!({"queue": {"concurrency_limit": -1}})).concurrent);
    }
}
