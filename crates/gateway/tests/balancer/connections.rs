//! Connections to upstreams are kept within limits.

use std::net::SocketAddr;

use sallyport_testkit::{Echo, eventually};
use serde_json::json;

use crate::running::{Running, deadline};

fn gateway(echo: &Echo, conf: &str) -> Running {
    let target = echo.addr().to_string();
    Running::with(json!({}), json!({}), &[&target], conf)
}

#[test]
fn one_connection_serves_so_many_requests() {
    for (conf, requests, connections) in [
        ("upstream_keepalive_max_requests = 2", 6, 3),
        ("upstream_keepalive_max_requests = 0", 6, 1),
        ("upstream_keepalive_pool_size = 0", 6, 6),
        ("", 6, 1),
    ] {
        let echo = Echo::start();
        let gateway = gateway(&echo, conf);
        assert_eq!(gateway.statuses(requests), vec![200; requests]);
        assert_eq!(echo.connections(), connections, "{conf:?}");
    }
}

#[test]
fn idle_connections_end_after_their_time() {
    let echo = Echo::start();
    let gateway = gateway(&echo, "upstream_keepalive_idle_timeout = 0.05");
    assert_eq!(gateway.get("/").status, 200);
    let port = echo.port();
    eventually("the idle connection is closed", deadline(), || {
        !is_connected_to(port)
    });
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(echo.connections(), 2);
}

/// Whether this machine has an established IPv4 connection to the port.
fn is_connected_to(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = |line: &str| -> Option<(SocketAddr, bool)> {
        let mut words = line.split_whitespace().skip(2);
        let (_, port) = words.next()?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let established = words.next()? == "01";
        Some((SocketAddr::from(([127, 0, 0, 1], port)), established))
    };
    table
        .lines()
        .skip(1)
        .filter_map(remote)
        .any(|(remote, established)| remote.port() == port && established)
}
