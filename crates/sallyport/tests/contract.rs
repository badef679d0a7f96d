//! The network contract through the built executable.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "contract/doctor.rs"]
mod doctor;
#[path = "contract/doctor_control.rs"]
mod doctor_control;
#[path = "contract/far_end.rs"]
mod far_end;
#[path = "contract/firewall.rs"]
mod firewall;
#[path = "contract/ip_addresses.rs"]
mod ip_addresses;
#[path = "contract/lab.rs"]
mod lab;
#[path = "contract/maintenance.rs"]
mod maintenance;
#[path = "contract/network.rs"]
mod network;
#[path = "contract/ports_explain.rs"]
mod ports_explain;
#[path = "contract/unit.rs"]
mod unit;

use sallyport_testkit::{Deadline, Finished, Launch, Program};

fn sallyport(args: &[&str]) -> Launch {
    Program::new(env!("CARGO_BIN_EXE_sallyport")).args(args)
}

fn run(args: &[&str]) -> Finished {
    sallyport(args).run(Deadline::secs(60))
}

/// Runs it, expects status 1 or 2, and each of `parts` on standard error.
#[track_caller]
fn check_refused(args: &[&str], parts: &[&str]) {
    let done = run(args);
    assert!(
        matches!(done.status.code(), Some(1 | 2)),
        "{args:?}: {done:?}"
    );
    assert_eq!(done.stdout, "", "{args:?}");
    for part in parts {
        assert!(
            done.stderr.contains(part),
            "{args:?}: no {part:?} in:\n{}",
            done.stderr
        );
    }
}

/// Writes a file for one test.
fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const INSTALLATION: &str = r#"
base = "sally.example"
geos = ["eu"]
features = ["deck"]
control_planes = [{ prefix = "alpha", geo = "eu" }]

[[nodes]]
name = "cp"
roles = ["control_plane"]
addresses = ["192.0.2.11", "2001:db8::11"]

[[nodes]]
name = "edge"
roles = ["gateway"]
geo = "eu"
addresses = ["192.0.2.20"]

[peers]
operator = ["10.0.0.0/8"]
dns = ["192.0.2.53"]
"#;
