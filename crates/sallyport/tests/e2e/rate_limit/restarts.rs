//! Buckets that outlive a restart.

use std::path::Path;

use sallyport_testkit::Program;

use super::lab::{BUCKETS, Client};
use crate::lab::{has_all, sallyport, soon, write};

fn start(dir: &Path) -> (Program, Client) {
    let args = ["rate-limit", "-c", "buckets.yml", "--listen", "127.0.0.1:0"];
    let program = sallyport()
        .args(args)
        .args(["--snapshot", "kept"])
        .dir(dir)
        .start();
    let started = program.wait_for_line(r"rate limiter started address=(\S+)", soon());
    let address = started.groups[0].parse().unwrap();
    (program, Client::connect(address))
}

#[test]
fn what_was_taken_from_slow_buckets_stays_taken() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("buckets.yml"), BUCKETS);
    let (mut program, mut client) = start(dir.path());
    assert_eq!(client.take("wrong_password", "tito"), (true, 2));
    assert_eq!(client.take("wrong_password", "tito"), (true, 1));
    assert_eq!(client.take("once per hour", "k"), (true, 0));
    assert_eq!(client.take("ip", "1.2.3.4"), (true, 9));
    program.terminate();
    program.wait(soon());
    let (mut program, mut client) = start(dir.path());
    has_all(
        &program.output(),
        &["buckets of an earlier run", "restored=2"],
    );
    assert_eq!(client.take("wrong_password", "tito"), (true, 0));
    assert_eq!(client.take("wrong_password", "tito"), (false, 0));
    assert_eq!(client.take("once per hour", "k"), (false, 0));
    assert_eq!(client.take("once per hour", "other"), (true, 0));
    // one that fills within seconds is not worth keeping
    assert_eq!(client.take("ip", "1.2.3.4"), (true, 9));
    program.terminate();
    program.wait(soon());
    write(&dir.path().join("kept"), "something else");
    let args = [
        "rate-limit",
        "-c",
        "buckets.yml",
        "--listen",
        "127.0.0.1:0",
        "--snapshot",
        "kept",
    ];
    let refused = sallyport().args(args).dir(dir.path()).run(soon());
    assert!(!refused.status.success());
    has_all(
        &refused.stderr,
        &["snapshot kept cannot be used", "no snapshot"],
    );
}
