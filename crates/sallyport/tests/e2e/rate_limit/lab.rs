//! A running rate limiter.

use std::net::SocketAddr;
use std::path::Path;

use sallyport_testkit::Program;

use crate::lab::{sallyport, soon, write};
pub(super) use crate::limitd_client::{Client, take};

/// The bucket types of limitd's own tests.
pub(super) const BUCKETS: &str = "buckets:
  ip:
    size: 10
    per_second: 5
    override:
      127.0.0.1: {size: 1000, per_second: 5}
      0.0.0.0: {size: 100, unlimited: true}
  wrong_password: {size: 3}
  once per hour: {per_hour: 1}
";

pub(super) struct Limiter {
    pub(super) program: Program,
    pub(super) address: SocketAddr,
}

impl Limiter {
    /// Starts one on a free port; the file is written to `buckets.yml` in a directory of its own.
    pub(super) fn start(buckets: &str) -> Limiter {
        let dir = tempfile::tempdir().unwrap().keep();
        Limiter::start_in(&dir, "buckets.yml", buckets, "127.0.0.1:0")
    }

    pub(super) fn start_in(dir: &Path, file: &str, buckets: &str, listen: &str) -> Limiter {
        write(&dir.join(file), buckets);
        let args = ["rate-limit", "-c", file, "--listen", listen];
        let program = sallyport().args(args).dir(dir).start();
        let pattern = r"rate limiter started address=(127\.0\.0\.1:\d+)";
        let found = program.wait_for_line(pattern, soon());
        let address = found.groups[0].parse().unwrap();
        Limiter { program, address }
    }

    pub(super) fn url(&self) -> String {
        format!("limitd://{}", self.address)
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.address)
    }
}
