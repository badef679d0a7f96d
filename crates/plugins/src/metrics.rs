//! What a node counts for Prometheus, and how it is told (text format 0.0.4).
//!
//! Every core counts for itself, so counting never waits for another core; reading adds up. A
//! family is a constant of whoever feeds it; a series exists from its first value on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;

/// Most series of one family that a core counts. Label values may come from outside, and memory
/// is finite; what does not fit is counted in `kong_metrics_dropped_total`.
pub const SERIES_MAX: usize = 20_000;
/// As many cores as count apart; further ones share.
const SHARDS: usize = 64;

/// Values of one name and meaning, told apart by labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its full name, such as `kong_http_requests_total`.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// Names of its labels; values come in this order.
    pub labels: &'static [&'static str],
}

/// What the values of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sum that only grows.
    Counter,
    /// A value that comes and goes.
    Gauge,
    /// How many values were at most as large as each of these bounds, which grow.
    Histogram(&'static [u64]),
}

/// The series of a node.
#[derive(Default)]
pub struct Metrics {
    shards: Shards,
    dropped: AtomicUsize,
}

struct Shards(Box<[Mutex<Shard>]>);

impl Default for Shards {
    fn default() -> Shards {
        Shards((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

/// What one core counts: by family, by label values as they are written.
#[derive(Default)]
struct Shard {
    families: Vec<(&'static Family, AHashMap<Box<str>, Sample>)>,
    /// Room to write label values in.
    labels: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Sample {
    Number(f64),
    Histogram {
        /// Values at most as large as each bound and larger than the one before.
        counts: Box<[u64]>,
        count: u64,
        sum: f64,
    },
}

impl Metrics {
    /// Adds to a counter.
    ///
    /// # Panics
    /// If there are not as many label values as the family has labels.
    pub fn add(&self, family: &'static Family, labels: &[&str], amount: u64) {
        self.with(family, labels, |sample| {
            if let Sample::Number(number) = sample {
                *number += amount as f64;
            }
        });
    }

    /// Puts a value into a histogram.
    ///
    /// # Panics
    /// As [`add`](Metrics::add).
    pub fn observe(&self, family: &'static Family, labels: &[&str], value: f64) {
        let Kind::Histogram(bounds) = family.kind else {
            return;
        };
        self.with(family, labels, |sample| {
            if let Sample::Histogram { counts, count, sum } = sample {
                let at = bounds.iter().position(|&bound| value <= bound as f64);
                if let Some(at) = at {
                    counts[at] += 1;
                }
                *count += 1;
                *sum += value;
            }
        });
    }

    fn with(&self, family: &'static Family, labels: &[&str], then: impl FnOnce(&mut Sample)) {
        let mut shard = self.shard();
        let Shard {
            families,
            labels: text,
        } = &mut *shard;
        text.clear();
        write_labels(text, family, labels);
        let found = families
            .iter()
            .position(|(known, _)| std::ptr::eq(*known, family) || *known == family);
        let at = found.unwrap_or_else(|| {
            families.push((family, AHashMap::new()));
            families.len() - 1
        });
        let series = &mut families[at].1;
        if let Some(sample) = series.get_mut(text.as_str()) {
            return then(sample);
        }
        if series.len() >= SERIES_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        then(
            series
                .entry(text.as_str().into())
                .or_insert(match family.kind {
                    Kind::Counter | Kind::Gauge => Sample::Number(0.0),
                    Kind::Histogram(bounds) => Sample::Histogram {
                        counts: vec![0; bounds.len()].into(),
                        count: 0,
                        sum: 0.0,
                    },
                }),
        );
    }

    /// What this thread counts in.
    fn shard(&self) -> MutexGuard<'_, Shard> {
        thread_local! {
            static OWN: Cell<Option<usize>> = const { Cell::new(None) };
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let own = OWN.get().unwrap_or_else(|| {
            let next = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            OWN.set(Some(next));
            next
        });
        lock(&self.shards.0[own])
    }

    /// Writes every series, families by name.
    pub fn write(&self, out: &mut Exposition) {
        let mut all: BTreeMap<&str, (&'static Family, BTreeMap<Box<str>, Sample>)> =
            BTreeMap::new();
        for shard in &self.shards.0 {
            for (family, series) in &lock(shard).families {
                let (_, sums) = all
                    .entry(family.name)
                    .or_insert_with(|| (*family, BTreeMap::new()));
                for (labels, sample) in series {
                    match sums.get_mut(labels) {
                        Some(sum) => sum.add(sample),
                        None => _ = sums.insert(labels.clone(), sample.clone()),
                    }
                }
            }
        }
        for (family, series) in all.values() {
            out.head(family);
            for (labels, sample) in series {
                out.sample(family, labels, sample);
            }
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            out.value(&DROPPED, &[], dropped as f64);
        }
    }
}

static DROPPED: Family = Family {
    name: "kong_metrics_dropped_total",
    help: "Values that were not counted because a metric has too many series",
    kind: Kind::Counter,
    labels: &[],
};

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sample {
    fn add(&mut self, other: &Sample) {
        match (self, other) {
            (Sample::Number(sum), Sample::Number(more)) => *sum += more,
            (
                Sample::Histogram { counts, count, sum },
                Sample::Histogram {
                    counts: more_counts,
                    count: more_count,
                    sum: more_sum,
                },
            ) => {
                for (count, more) in counts.iter_mut().zip(more_counts) {
                    *count += more;
                }
                *count += more_count;
                *sum += more_sum;
            }
            _ => {}
        }
    }
}

fn write_labels(out: &mut String, family: &Family, values: &[&str]) {
    assert_eq!(
        family.labels.len(),
        values.len(),
        "labels of {}",
        family.name
    );
    for (at, (name, value)) in family.labels.iter().zip(values).enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Metrics as Prometheus reads them.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    /// The family whose values are being written.
    current: Option<&'static str>,
}

impl Exposition {
    /// Value of `Content-Type`.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// The whole text.
    pub fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, family: &'static Family) {
        if self.current == Some(family.name) {
            return;
        }
        self.current = Some(family.name);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let Family { name, help, .. } = family;
        _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Writes one value of a counter or a gauge. Values of a family must follow each other.
    ///
    /// # Panics
    /// If there are not as many label values as the family has labels.
    pub fn value(&mut self, family: &'static Family, labels: &[&str], value: f64) {
        self.head(family);
        let mut text = String::new();
        write_labels(&mut text, family, labels);
        self.sample(family, &text, &Sample::Number(value));
    }

    fn sample(&mut self, family: &Family, labels: &str, sample: &Sample) {
        let name = family.name;
        let out = &mut self.text;
        let braced = match labels {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        match (sample, family.kind) {
            (Sample::Number(number), _) => _ = writeln!(out, "{name}{braced} {number}"),
            (Sample::Histogram { counts, count, sum }, Kind::Histogram(bounds)) => {
                let comma = if labels.is_empty() { "" } else { "," };
                let mut below = 0;
                for (bound, count) in bounds.iter().zip(counts) {
                    below += count;
                    _ = writeln!(
                        out,
                        "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {below}"
                    );
                }
                _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
                _ = writeln!(out, "{name}_count{braced} {count}");
                _ = writeln!(out, "{name}_sum{braced} {sum}");
            }
            (Sample::Histogram { .. }, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static REQUESTS: Family = Family {
        name: "kong_http_requests_total",
        help: "Requests",
        kind: Kind::Counter,
        labels: &["service", "code"],
    };
    static LATENCY: Family = Family {
        name: "kong_latency_ms",
        help: "Latency",
        kind: Kind::Histogram(&[1, 5]),
        labels: &["service"],
    };

    fn text(metrics: &Metrics) -> String {
        let mut out = Exposition::default();
        metrics.write(&mut out);
        out.into_text()
    }

    #[test]
    fn series_of_all_cores_are_added_up() {
        let metrics = Metrics::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    metrics.add(&REQUESTS, &["a\"\\\nb", "200"], 2);
                    metrics.add(&REQUESTS, &["a", "200"], 1);
                    for value in [0.5, 5.0, 6.0] {
                        metrics.observe(&LATENCY, &["a"], value);
                    }
                });
            }
        });
        assert_eq!(
            text(&metrics),
            "# HELP kong_http_requests_total Requests\n\
             # TYPE kong_http_requests_total counter\n\
             kong_http_requests_total{service=\"a\",code=\"200\"} 4\n\
             kong_http_requests_total{service=\"a\\\"\\\\\\nb\",code=\"200\"} 8\n\
             # HELP kong_latency_ms Latency\n\
             # TYPE kong_latency_ms histogram\n\
             kong_latency_ms_bucket{service=\"a\",le=\"1\"} 4\n\
             kong_latency_ms_bucket{service=\"a\",le=\"5\"} 8\n\
             kong_latency_ms_bucket{service=\"a\",le=\"+Inf\"} 12\n\
             kong_latency_ms_count{service=\"a\"} 12\n\
             kong_latency_ms_sum{service=\"a\"} 46\n"
        );
    }

    #[test]
    fn a_family_has_a_bound() {
        let metrics = Metrics::default();
        for n in 0..SERIES_MAX + 3 {
            metrics.add(&REQUESTS, &[&n.to_string(), "200"], 1);
        }
        metrics.add(&REQUESTS, &["0", "200"], 1);
        let text = text(&metrics);
        assert!(text.contains("kong_http_requests_total{service=\"0\",code=\"200\"} 2\n"));
        assert!(
            text.ends_with("kong_metrics_dropped_total 3\n"),
            "{}",
            &text[text.len() - 200..]
        );
    }
}
