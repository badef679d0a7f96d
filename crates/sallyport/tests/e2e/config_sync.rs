//! Control plane and gateway die and come back, each in turn; traffic goes on.

use std::time::Duration;

use sallyport_testkit::http::get;
use sallyport_testkit::{Deadline, Echo, Load};

use crate::lab::{Control, Gateway, after_reconnect, soon};

#[test]
fn traffic_goes_on_without_a_control_plane_and_changes_arrive_when_it_is_back() {
    let echo = Echo::start();
    let mut control = Control::start();
    let mut gateway = Gateway::start(&control);
    control.route_to("first", echo.port());
    gateway.wait_for("/first", 200, soon());

    let load = Load::expect_status(get(gateway.url("/first")), 200, Duration::from_millis(5));
    load.wait_for_more(20, soon());
    control.kill9();
    gateway.program.wait_for_line(
        "control plane.*(lost|down|refused|closed)|without a control plane|reason=",
        soon(),
    );
    load.wait_for_more(50, soon());
    load.stop().assert_clean();

    // the gateway dies as well, and comes back to nobody
    gateway.kill9_and_start();
    assert_eq!(
        gateway.status_of("/first"),
        200,
        "served as soon as it listens"
    );
    gateway
        .program
        .wait_for_line("last-known-good configuration in force", soon());
    assert_eq!(gateway.ask_status("/status/ready").status, 200);

    let load = Load::expect_status(get(gateway.url("/first")), 200, Duration::from_millis(5));
    control.start_again();
    gateway
        .program
        .wait_for_line("control plane connected", after_reconnect());
    control.route_to("second", echo.port());
    gateway.wait_for("/second", 200, soon());
    control.wait_in_sync(1);
    load.wait_for_more(20, soon());
    load.stop().assert_clean();
    assert_eq!(gateway.status_of("/first"), 200);
}

#[test]
fn a_change_made_while_the_gateway_was_away_arrives_with_its_return() {
    let echo = Echo::start();
    let control = Control::start();
    let mut gateway = Gateway::start(&control);
    control.route_to("before", echo.port());
    gateway.wait_for("/before", 200, soon());
    gateway.program.kill9();
    control.route_to("meanwhile", echo.port());
    gateway.kill9_and_start();
    gateway.wait_for("/meanwhile", 200, soon());
    control.wait_in_sync(1);
}

#[test]
fn an_acknowledged_write_survives_kill_9() {
    let mut control = Control::start();
    for round in 0..3 {
        control.route_to(&format!("kept-{round}"), 1);
        control.kill9();
        control.start_again();
    }
    let routes = control
        .core("GET", "routes", &serde_json::Value::Null)
        .json();
    let mut names: Vec<_> = routes["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["kept-0", "kept-1", "kept-2"]);
}

#[test]
fn both_stop_cleanly_when_asked() {
    let mut control = Control::start();
    let mut gateway = Gateway::start(&control);
    control.program.terminate();
    assert_eq!(control.program.wait(soon()).code(), Some(0));
    gateway
        .program
        .wait_for_line("closed the link.*1001|1001", soon());
    gateway.program.terminate();
    assert_eq!(gateway.program.wait(Deadline::secs(30)).code(), Some(0));
}
