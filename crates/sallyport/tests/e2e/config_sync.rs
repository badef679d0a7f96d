//! Control plane and gateway die and come back, each in turn; traffic goes on.

use std::time::Duration;

use sallyport_testkit::http::get;
use sallyport_testkit::{Deadline, Echo, Load, eventually};
use serde_json::json;

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
fn changes_of_every_day_are_edits_and_nothing_is_made_anew() {
    let echo = Echo::start();
    let control = Control::start();
    control.route_to("first", echo.port());
    let mut gateway = Gateway::start(&control);
    gateway.wait_for("/first", 200, soon());
    let routes = control
        .core("GET", "routes", &serde_json::Value::Null)
        .json();
    let route = json!({"id": routes["data"][0]["id"]});
    let id = |n: u8| format!("7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d{n:02}");
    let foreign = |n: u8| json!({"id": id(n)});
    let put = |list: &str, n: u8, body: serde_json::Value| {
        control.put(&format!("{list}/{}", id(n)), &body);
    };
    put("consumers", 1, json!({"username": "alice"}));
    let post = |path: String, body: serde_json::Value| {
        let made = control.core("POST", &path, &body);
        assert_eq!(made.status, 201, "{}", made.text());
    };
    post(format!("consumers/{}/key-auth", id(1)), json!({"key": "k"}));
    post(
        format!("consumers/{}/acls", id(1)),
        json!({"group": "team"}),
    );
    put("plugins", 4, json!({"name": "key-auth", "route": route}));
    gateway.wait_for("/first", 401, soon());
    put("plugins", 5, json!({"name": "correlation-id"}));
    put("upstreams", 6, json!({"name": "pool"}));
    let target = json!({"target": format!("127.0.0.1:{}", echo.port())});
    post(format!("upstreams/{}/targets", id(6)), target);
    put("services", 7, json!({"host": "pool", "name": "balanced"}));
    put(
        "routes",
        8,
        json!({"paths": ["/balanced"], "service": foreign(7)}),
    );
    gateway.wait_for("/balanced", 200, soon());
    control.wait_in_sync(1);
    let key = |key: &str| {
        let request = get(gateway.url("/first")).header("apikey", key);
        request.send().unwrap().status
    };
    assert_eq!((key("k"), key("other")), (200, 401));
    // off and on, with what hangs on it; under another name; with a certificate to show
    let service = |host: &str, more: serde_json::Value| {
        let mut service = json!({"host": host, "name": "balanced"});
        service
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        put("services", 7, service);
    };
    service("pool", json!({"enabled": false}));
    gateway.wait_for("/balanced", 404, soon());
    service("pool", json!({"enabled": true}));
    gateway.wait_for("/balanced", 200, soon());
    put("upstreams", 6, json!({"name": "renamed"}));
    service("renamed", json!({}));
    gateway.wait_for("/balanced", 200, soon());
    let pair = sallyport_runtime::certs::self_signed_localhost(1).unwrap();
    put(
        "certificates",
        9,
        json!({"cert": pair.cert, "key": pair.key}),
    );
    let ca = sallyport_runtime::certs::LocalCa::create("test", 1).unwrap();
    put("ca_certificates", 10, json!({"cert": ca.pem().cert}));
    put(
        "upstreams",
        6,
        json!({"name": "renamed", "client_certificate": foreign(9)}),
    );
    put(
        "plugins",
        11,
        json!({"name": "session", "service": foreign(7),
        "config": {"secret": "{vault://env/no-such-secret}"}}),
    );
    gateway.wait_for("/balanced", 503, soon());
    put(
        "plugins",
        11,
        json!({"name": "session", "service": foreign(7), "enabled": false}),
    );
    gateway.wait_for("/balanced", 200, soon());
    control.wait_in_sync(1);
    let sync = gateway.ask_status("/status").json()["config_sync"].clone();
    assert_eq!(
        (&sync["rebuilds"], &sync["resyncs"]),
        (&json!(0), &json!(0))
    );
    // those that were made at once came at once
    assert!(sync["applied"].as_u64().unwrap() >= 2, "{sync}");
    // and what was edited is what comes from the disk
    gateway.kill9_and_start();
    let request = get(gateway.url("/first")).header("apikey", "k");
    assert_eq!(request.send().unwrap().status, 200);
    assert_eq!(gateway.status_of("/balanced"), 200);
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

/// How many requests run when the gateway is told to stop.
const UNDER_WAY: usize = 12;

#[test]
fn a_gateway_that_is_told_to_stop_finishes_what_runs_and_closes_its_link() {
    let echo = Echo::start();
    let control = Control::start();
    let mut gateway = Gateway::start(&control);
    control.route_to("first", echo.port());
    gateway.wait_for("/first", 200, soon());
    for signal in ["TERM", "QUIT"] {
        echo.delay(Duration::from_secs(2));
        let before = echo.count();
        let url = gateway.url("/first");
        let requests: Vec<_> = (0..UNDER_WAY)
            .map(|_| get(url.clone()))
            .map(|request| std::thread::spawn(move || request.send().map(|it| it.status)))
            .collect();
        eventually("the requests are under way", soon(), || {
            echo.count() >= before + UNDER_WAY
        });
        let told = control.program.lines();
        gateway.program.signal(signal);
        for request in requests {
            assert_eq!(request.join().unwrap().unwrap(), 200, "{signal}");
        }
        assert_eq!(gateway.program.wait(soon()).code(), Some(0), "{signal}");
        control.program.wait_for_line_after(
            told,
            "data plane disconnected.*ended by the data plane: closed$",
            soon(),
        );
        assert_eq!(echo.count(), before + UNDER_WAY, "none was sent twice");
        echo.delay(Duration::ZERO);
        gateway.kill9_and_start();
        gateway.wait_for("/first", 200, soon());
        gateway
            .program
            .wait_for_line("control plane connected", soon());
    }
}
