//! What a gateway restarts from when its control plane is gone and its files are damaged.

use sallyport_testkit::Echo;

use crate::lab::{Control, Gateway, Pair, after_reconnect, soon, write};

#[test]
fn a_damaged_file_gives_way_to_the_previous_one_and_two_to_the_control_plane() {
    let echo = Echo::start();
    let mut control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    // every configuration comes, and is stored, as a whole
    let mut gateway = Gateway::start_set(&control, dir, &pair, "sallyport_sync = v1");
    control.route_to("older", echo.port());
    gateway.wait_for("/older", 200, soon());
    control.wait_in_sync(1);
    control.put("services/spare", &serde_json::json!({"host": "127.0.0.1"}));
    control.wait_in_sync(1);
    let older = std::fs::read(gateway.state("last_known_good")).unwrap();
    let service = control
        .core("GET", "services/older", &serde_json::Value::Null)
        .json();
    let route = serde_json::json!({"paths": ["/newer"], "service": {"id": service["id"]}});
    control.put("routes/newer", &route);
    gateway.wait_for("/newer", 200, soon());
    control.wait_in_sync(1);
    control.kill9();

    let newest = gateway.state("last_known_good");
    let previous = gateway.state("last_known_good.previous");
    assert_eq!(
        std::fs::read(&previous).unwrap(),
        older,
        "the one before is kept"
    );

    // one bit in the middle
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&newest, &bytes);
    gateway.kill9_and_start();
    gateway
        .program
        .wait_for_line("newest last-known-good.*taking the previous", soon());
    assert_eq!(
        (gateway.status_of("/older"), gateway.status_of("/newer")),
        (200, 404)
    );

    // cut off, as after a full disk
    write(&newest, &bytes[..middle]);
    gateway.kill9_and_start();
    assert_eq!(gateway.status_of("/older"), 200);

    // both gone bad: it says so, starts with nothing, and waits
    write(&newest, b"");
    write(&previous, b"no configuration at all");
    gateway.kill9_and_start();
    let line = gateway
        .program
        .wait_for_line("no last-known-good configuration can be used", soon());
    assert!(
        line.line.contains("starting without a configuration"),
        "{}",
        line.line
    );
    assert_eq!(gateway.status_of("/older"), 404);
    assert_eq!(gateway.ask_status("/status/ready").status, 503);
    assert!(gateway.program.is_running());

    control.start_again();
    gateway.wait_for("/newer", 200, after_reconnect());
    assert_eq!(gateway.status_of("/older"), 200);
    control.wait_in_sync(1);

    // and what it got is good for the next start
    control.kill9();
    gateway.kill9_and_start();
    assert_eq!(gateway.status_of("/newer"), 200);
    assert!(!gateway.program.output().contains("taking the previous"));
}

/// A gateway that gets changes adds them to a file of their own.
#[test]
fn changes_survive_a_kill_and_a_torn_end_costs_only_what_was_torn() {
    let echo = Echo::start();
    let mut control = Control::start();
    let mut gateway = Gateway::start(&control);
    for name in ["one", "two", "three"] {
        control.route_to(name, echo.port());
        gateway.wait_for(&format!("/{name}"), 200, soon());
    }
    control.wait_in_sync(1);
    control.kill9();
    gateway.kill9_and_start();
    for name in ["one", "two", "three"] {
        assert_eq!(gateway.status_of(&format!("/{name}")), 200, "{name}");
    }

    // a crash in the middle of the last record
    let changes = gateway.state("last_known_good.changes");
    let bytes = std::fs::read(&changes).unwrap();
    write(&changes, &bytes[..bytes.len() - 7]);
    gateway.kill9_and_start();
    assert_eq!(gateway.status_of("/two"), 200);
    assert_eq!(gateway.status_of("/three"), 404);

    // and the control plane sends what is missing, no more
    control.start_again();
    gateway.wait_for("/three", 200, after_reconnect());
    control.wait_in_sync(1);
    let log = gateway.program.output();
    assert!(!log.contains("would not be what was published"), "{log}");
}

/// What is in force and not on the disk yet is there before the gateway ends.
#[test]
fn a_gateway_that_is_stopped_keeps_the_last_change() {
    let echo = Echo::start();
    let mut control = Control::start();
    let mut gateway = Gateway::start(&control);
    control.route_to("first", echo.port());
    gateway.wait_for("/first", 200, soon());
    control.wait_in_sync(1);
    control.route_to("last", echo.port());
    gateway.wait_for("/last", 200, soon());
    gateway.program.terminate();
    gateway.program.wait(soon());
    control.kill9();
    gateway.kill9_and_start();
    assert_eq!(gateway.status_of("/last"), 200);
}
