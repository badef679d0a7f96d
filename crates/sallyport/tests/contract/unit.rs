//! The systemd unit in `deploy/`: it is valid, hardened, and names what the executable has.

use std::path::{Path, PathBuf};

use sallyport_testkit::{Deadline, Program, foreign};

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/sallyport-node.service")
}

/// The unit with the built executable in the place of the installed one, as systemd looks for it.
fn with_executable(dir: &Path) -> PathBuf {
    let text = std::fs::read_to_string(unit()).unwrap();
    let own = text.replace("/usr/bin/sallyport", env!("CARGO_BIN_EXE_sallyport"));
    assert_ne!(own, text, "the unit starts another program");
    let file = dir.join("sallyport-node.service");
    std::fs::write(&file, own).unwrap();
    file
}

#[test]
fn the_unit_is_valid_and_hardened_for_systemd_itself() {
    let Some(analyze) = foreign("systemd-analyze", "Debian package systemd") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = with_executable(dir.path());
    let file = file.to_str().unwrap();
    let verified = Program::new(&analyze)
        .args(["verify", "--man=no", "--recursive-errors=no", file])
        .run(Deadline::secs(60));
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(verified.stderr.trim(), "", "{verified:?}");
    // 0 is nothing that the service could do, 10 everything; tens of the number it prints.
    let hardened = Program::new(&analyze)
        .args([
            "security",
            "--offline=yes",
            "--no-pager",
            "--threshold=18",
            file,
        ])
        .run(Deadline::secs(60));
    assert!(hardened.status.success(), "{}", hardened.stdout);
}

#[test]
fn the_unit_gives_the_node_what_it_needs_and_no_more() {
    let text = std::fs::read_to_string(unit()).unwrap();
    let setting = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name} in the unit"))
    };
    // Ports below 1024 and ICMP; nothing else, and never root.
    let needed = "CAP_NET_BIND_SERVICE CAP_NET_RAW";
    assert_eq!(setting("CapabilityBoundingSet"), needed);
    assert_eq!(setting("AmbientCapabilities"), needed);
    assert_eq!(setting("User"), "sallyport");
    for (name, value) in [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        // A call that is not allowed fails, and does not end the node.
        ("SystemCallErrorNumber", "EPERM"),
        ("SystemCallArchitectures", "native"),
    ] {
        assert_eq!(setting(name), value, "{name}");
    }
    // What it starts is there.
    let words: Vec<&str> = setting("ExecStart").split(' ').skip(1).collect();
    let (verb, config) = words.split_at(2);
    assert_eq!(verb, ["node", "run"]);
    let help = Program::new(env!("CARGO_BIN_EXE_sallyport"))
        .args(["node", "--help"])
        .run(Deadline::secs(60));
    assert!(help.success().stdout.contains(config[0]));
}
