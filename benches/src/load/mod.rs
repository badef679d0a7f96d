//! The load generators, and what they count in the same terms.

pub(crate) mod h2load;
pub(crate) mod handshakes;
pub(crate) mod wrk;

use std::path::Path;

use anyhow::bail;

use crate::workload::Name;

/// What a generator counted in one run.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub(crate) struct Counts {
    /// Answers that came back.
    pub(crate) requests: u64,
    /// How long it measured, in microseconds.
    pub(crate) duration_us: u64,
    /// Median latency in microseconds.
    pub(crate) p50_us: u64,
    /// 99th percentile of latency in microseconds.
    pub(crate) p99_us: u64,
    errors: Errors,
}

#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
struct Errors {
    connect: u64,
    read: u64,
    write: u64,
    /// Answers with a status above 399.
    status: u64,
    timeout: u64,
}

impl Counts {
    /// These counts if they mean something: any failed request voids a run.
    pub(crate) fn checked(self) -> anyhow::Result<Counts> {
        if self.errors != Errors::default() {
            bail!(
                "requests failed under load: {:?} of {}",
                self.errors,
                self.requests
            );
        }
        if self.requests == 0 {
            bail!("the load generator got no answer");
        }
        Ok(self)
    }
}

/// How a generator is to be run.
pub(crate) struct Run<'a> {
    pub(crate) workload: Name,
    pub(crate) cores: &'a str,
    pub(crate) connections: u32,
    pub(crate) seconds: u32,
    /// Directory for files of the run.
    pub(crate) dir: &'a Path,
    pub(crate) script: &'a str,
    pub(crate) port: u16,
}

/// Runs the generator that the workload takes to its end; any failed request is an error.
pub(crate) fn run(run: &Run<'_>) -> anyhow::Result<Counts> {
    let counts = match run.workload {
        Name::Http2 => h2load::run(run, h2load::Pace::AsFastAsItGoes),
        Name::Handshakes => handshakes::run(run),
        Name::Plain | Name::Gateway | Name::Transform | Name::Tls => wrk::run(run),
    };
    counts?.checked()
}

/// The 50th and the 99th percentile of some times in microseconds.
fn percentiles(mut times: Vec<u64>) -> (u64, u64) {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len().saturating_sub(1) * percent / 100);
    let of = |percent| at(percent).copied().unwrap_or_default();
    (of(50), of(99))
}
