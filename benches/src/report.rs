//! Medians, ratios and bars, printed as one Markdown table.

use std::fmt;

use crate::measure::{self, Sample};
use crate::peer::Peer;

/// CPU per request that our gateway may take at most: workload, peer, multiple of the peer's.
const BARS: [(&str, &str, f64); 4] = [
    ("plain", "nginx", 0.95),
    ("gateway", "nginx", 0.80),
    ("gateway", "nginx-lua", 0.65),
    ("transform", "nginx-lua", 0.65),
];
/// The part of the machine that others may take before the numbers are called into question.
const OTHERS_MAX: f64 = 0.05;
/// How busy the baseline's core must have been at least: otherwise the load was too little, or
/// others took the core.
const BUSY_MIN: f64 = 0.85;

/// A line of the table: a name, a value of a sample, how many digits it is shown with, and
/// whether a ratio says anything about it.
type Measure = (&'static str, fn(&Sample) -> f64, usize, bool);

const MEASURES: [Measure; 8] = [
    ("CPU per request, µs", |s| s.cpu_us, 2, true),
    (
        "of it in the kernel, %",
        |s| s.kernel_part * 100.0,
        0,
        false,
    ),
    ("requests/s", |s| s.requests_per_second, 0, true),
    ("p50, ms", |s| s.p50_us / 1_000.0, 2, true),
    ("p99, ms", |s| s.p99_us / 1_000.0, 2, true),
    ("RSS, MiB", |s| s.rss_kib / 1_024.0, 1, true),
    ("PSS, MiB", |s| s.pss_kib / 1_024.0, 1, true),
    ("proxy core busy, %", |s| s.busy * 100.0, 0, false),
];

/// The result of all workloads.
pub(crate) struct Report {
    labels: Vec<String>,
    /// Per workload, per peer, per round.
    results: Vec<(String, Vec<Vec<Sample>>)>,
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Of values, of which there is at least one.
    fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (values[0], values[values.len() - 1]);
        Spread {
            median: measure::median(values),
            min,
            max,
        }
    }

    /// Of the ratios between measurements of the same round.
    fn of_ratios(peer: &[Sample], baseline: &[Sample], value: fn(&Sample) -> f64) -> Spread {
        let rounds = peer.iter().zip(baseline);
        Spread::of(rounds.map(|(peer, baseline)| value(peer) / value(baseline)))
    }
}

/// A bar, and what came of it.
struct Tried {
    workload: &'static str,
    peer: &'static str,
    bar: f64,
    ratio: Spread,
}

impl Report {
    /// The first peer is the one that ratios refer to.
    pub(crate) fn new(peers: &[Box<dyn Peer>], results: Vec<(String, Vec<Vec<Sample>>)>) -> Report {
        Report {
            labels: peers.iter().map(|peer| peer.label().to_owned()).collect(),
            results,
        }
    }

    /// How many bars were missed.
    pub(crate) fn missed_bars(&self) -> usize {
        let missed = |tried: &Tried| tried.ratio.median > tried.bar;
        self.bars().filter(missed).count()
    }

    /// Each bar that was put to the test.
    fn bars(&self) -> impl Iterator<Item = Tried> {
        let at = |label: &str| self.labels.iter().position(|l| l == label);
        let ours = at("sallyport");
        BARS.iter().filter_map(move |(workload, peer, bar)| {
            let results = self.results.iter().find(|(name, _)| name == workload);
            let peers = &results?.1;
            Some(Tried {
                workload,
                peer,
                bar: *bar,
                ratio: Spread::of_ratios(&peers[ours?], &peers[at(peer)?], |s| s.cpu_us),
            })
        })
    }

    /// What speaks against believing the numbers.
    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        for (name, peers) in &self.results {
            let others = Spread::of(peers.iter().flatten().map(|s| s.others));
            if others.max > OTHERS_MAX {
                doubts.push(format!(
                    "{name}: others took up to {:.0} % of the machine (median {:.0} %)",
                    others.max * 100.0,
                    others.median * 100.0
                ));
            }
            let busy = Spread::of(peers[0].iter().map(|s| s.busy));
            if busy.median < BUSY_MIN {
                doubts.push(format!(
                    "{name}: {} used only {:.0} % of its core; compare CPU per request, not \
                     requests/s or latency",
                    self.labels[0],
                    busy.median * 100.0
                ));
            }
        }
        doubts
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| workload | median of rounds | {} |", self.labels[0])?;
        for label in &self.labels[1..] {
            write!(f, " {label} | ratio (spread) |")?;
        }
        write!(f, "\n|---|---|--:|")?;
        self.labels[1..]
            .iter()
            .try_for_each(|_| write!(f, "--:|--:|"))?;
        for (name, peers) in &self.results {
            for (what, value, digits, has_ratio) in MEASURES {
                write!(f, "\n| {name} | {what} |")?;
                for (at, samples) in peers.iter().enumerate() {
                    let median = Spread::of(samples.iter().map(value)).median;
                    write!(f, " {median:.digits$} |")?;
                    if at > 0 && has_ratio {
                        let Spread { median, min, max } =
                            Spread::of_ratios(samples, &peers[0], value);
                        write!(f, " {median:.2} ({min:.2}–{max:.2}) |")?;
                    } else if at > 0 {
                        write!(f, " |")?;
                    }
                }
            }
        }
        writeln!(f)?;
        for Tried {
            workload,
            peer,
            bar,
            ratio,
        } in self.bars()
        {
            let verdict = if ratio.median <= bar {
                "pass"
            } else {
                "MISSED"
            };
            let median = ratio.median;
            write!(
                f,
                "\n- bar {workload}: CPU per request ≤ {bar:.2} × {peer}: {median:.3}, {verdict}"
            )?;
        }
        self.doubts()
            .iter()
            .try_for_each(|doubt| write!(f, "\n- doubt {doubt}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_us: f64, busy: f64, others: f64) -> Sample {
        Sample {
            cpu_us,
            kernel_part: 0.5,
            requests_per_second: 1e6 / cpu_us,
            p50_us: 1_000.0,
            p99_us: 2_000.0,
            rss_kib: 2_048.0,
            pss_kib: 1_024.0,
            busy,
            others,
        }
    }

    fn report(labels: [&str; 2], name: &str, ours: &[f64]) -> Report {
        let nginx = ours.iter().map(|_| sample(20.0, 0.99, 0.01)).collect();
        let ours = ours.iter().map(|cpu| sample(*cpu, 0.99, 0.01)).collect();
        Report {
            labels: labels.map(str::to_owned).into(),
            results: vec![(name.to_owned(), vec![nginx, ours])],
        }
    }

    #[test]
    fn medians_and_spreads() {
        let spread = |median, min, max| Spread { median, min, max };
        assert_eq!(Spread::of([3.0]), spread(3.0, 3.0, 3.0));
        assert_eq!(Spread::of([9.0, 1.0, 4.0]), spread(4.0, 1.0, 9.0));
        assert_eq!(Spread::of([9.0, 1.0, 4.0, 2.0]), spread(3.0, 1.0, 9.0));
    }

    #[test]
    fn bars_are_judged_by_the_median() {
        let missed = |name, ours: &[f64]| report(["nginx", "sallyport"], name, ours).missed_bars();
        assert_eq!(missed("plain", &[19.0, 30.0, 17.0]), 0);
        assert_eq!(missed("plain", &[19.1, 30.0, 17.0]), 1);
        assert_eq!(missed("gateway", &[16.0]), 0);
        assert_eq!(missed("gateway", &[16.1]), 1);
        let other = report(["nginx-forwarded", "sallyport"], "plain", &[99.0]);
        assert_eq!(other.missed_bars(), 0, "the bar is against plain nginx");
        let lua = report(["nginx-lua", "sallyport"], "gateway", &[15.0]);
        assert_eq!(lua.missed_bars(), 1, "0.75 of it");
        let other = report(["nginx-lua", "sallyport"], "gateway, 10 routes", &[15.0]);
        assert_eq!(
            other.missed_bars(),
            0,
            "bars are for the usual number of routes"
        );
    }

    #[test]
    fn the_table_has_ratios_and_verdicts() {
        let text = report(["nginx", "sallyport"], "gateway", &[15.0, 14.0, 18.0]).to_string();
        let row = "| gateway | CPU per request, µs | 20.00 | 15.00 | 0.75 (0.70–0.90) |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("≤ 0.80 × nginx: 0.750, pass"), "{text}");
        assert!(!text.contains("doubt"), "{text}");
    }

    #[test]
    fn a_disturbed_run_is_doubted() {
        let mut report = report(["nginx", "sallyport"], "plain", &[15.0]);
        report.results[0].1[1][0].others = 0.3;
        report.results[0].1[0][0].busy = 0.4;
        let text = report.to_string();
        assert!(text.contains("others took up to 30 %"), "{text}");
        assert!(text.contains("nginx used only 40 % of its core"), "{text}");
    }
}
