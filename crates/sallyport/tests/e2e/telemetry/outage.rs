//! The control plane away, or full: traffic goes on, each request is told once or counted as dropped.

use std::time::Duration;

use sallyport_testkit::http::get;
use sallyport_testkit::{Echo, Load, eventually};
use serde_json::Value;

use super::{metric, metrics_of, reporting, requests, wait_for_requests};
use crate::lab::{Control, after_reconnect, soon};

/// Requests that have a route.
fn of_route(control: &Control) -> String {
    let route = control.core("GET", "routes/orders", &Value::Null).json();
    format!("filter[route]={}", route["id"].as_str().unwrap())
}

#[test]
fn a_control_plane_that_is_killed_again_and_again_counts_each_request_once() {
    let mut control = Control::start();
    let gateway = reporting(&control, "");
    let echo = Echo::start();
    control.route_to("orders", echo.port());
    gateway.wait_for("/orders", 200, soon());
    let load = Load::expect_status(get(gateway.url("/orders")), 200, Duration::from_millis(2));
    for _ in 0..4 {
        load.wait_for_more(300, soon());
        control.kill9();
        load.wait_for_more(300, soon());
        // a quick end between two batches is noticed by nobody, so the log may say nothing
        let batches = || {
            let text = metrics_of(&gateway);
            metric(&text, "sallyport_telemetry_batches_total")
        };
        let before = batches();
        control.start_again();
        eventually("telemetry is taken again", after_reconnect(), || {
            batches() > before
        });
    }
    let report = load.stop();
    report.assert_clean();
    assert_eq!(
        metric(
            &metrics_of(&gateway),
            "sallyport_telemetry_dropped_requests_total"
        ),
        0.0
    );
    // the echo server counts for itself
    wait_for_requests(&control, &of_route(&control), echo.count() as u64);
}

#[test]
fn a_full_buffer_drops_the_oldest_and_says_how_many() {
    let mut control = Control::start();
    let gateway = reporting(&control, "analytics_buffer_size_limit = 2\n");
    let echo = Echo::start();
    for name in ["orders", "b", "c", "d"] {
        control.route_to(name, echo.port());
        gateway.wait_for(&format!("/{name}"), 200, soon());
    }
    control.kill9();
    gateway
        .program
        .wait_for_line("telemetry is not taken, it waits", soon());
    for path in ["/orders", "/b", "/c", "/d"].repeat(5) {
        assert_eq!(gateway.status_of(path), 200);
    }
    gateway
        .program
        .wait_for_line("telemetry waits for too long", soon());
    let waiting = metric(&metrics_of(&gateway), "sallyport_telemetry_waiting_records");
    // those that were tried already are not dropped: at most the four routes' and the misses'
    assert!(waiting <= 2.0 + 8.0, "{waiting} records wait");
    let lines = gateway.program.lines();
    control.start_again();
    let taken = "telemetry is taken again.*dropped_requests";
    gateway
        .program
        .wait_for_line_after(lines, taken, after_reconnect());
    eventually(
        "every request with a route is told or dropped",
        soon(),
        || {
            let dropped = metric(
                &metrics_of(&gateway),
                "sallyport_telemetry_dropped_requests_total",
            );
            let text = control.api("GET", "/metrics", &Value::Null).text();
            let told = metric(&text, "sallyport_telemetry_gateway_dropped_requests_total");
            // misses before the routes arrived have none
            let known =
                requests(&control, "") as f64 - requests(&control, "filter[route]=none") as f64;
            dropped > 0.0 && told == dropped && known + dropped >= echo.count() as f64
        },
    );
}

#[test]
fn a_gateway_that_stops_sends_what_is_left() {
    let control = Control::start();
    let mut gateway = reporting(&control, "analytics_flush_interval = 3600\n");
    let echo = Echo::start();
    control.route_to("orders", echo.port());
    gateway.wait_for("/orders", 200, soon());
    (0..20).for_each(|_| assert_eq!(gateway.status_of("/orders"), 200));
    gateway.program.terminate();
    assert!(gateway.program.wait(soon()).success());
    wait_for_requests(&control, &of_route(&control), echo.count() as u64);
}

#[test]
fn who_takes_no_telemetry_is_told_of_and_not_pestered() {
    // the endpoint of the configuration takes none
    let control = Control::start();
    let dir = tempfile::tempdir().unwrap();
    let pair = crate::lab::Pair::make(dir.path());
    control.pin(&pair.cert());
    let conf = format!(
        "cluster_telemetry_endpoint = 127.0.0.1:{}\n\
         cluster_telemetry_server_name = {}\n",
        control.port,
        Control::node_name(&control.prefix)
    );
    let gateway = crate::lab::Gateway::start_set(&control, dir, &pair, &conf);
    assert_eq!(gateway.status_of("/"), 404);
    gateway
        .program
        .wait_for_line("telemetry is refused and given up.*404", soon());
    let dropped = metric(
        &metrics_of(&gateway),
        "sallyport_telemetry_dropped_requests_total",
    );
    assert!(dropped >= 1.0);
}
