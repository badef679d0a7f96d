//! Targets and services that are names.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;

use sallyport_testkit::{
    Dns, DnsAnswer, DnsData, DnsRecord, Echo, Program, eventually, foreign, free_port,
};
use serde_json::json;

use crate::running::{Running, deadline};

/// Two echoes on one port of two addresses.
fn two_on_one_port() -> (Echo, Echo) {
    for _ in 0..50 {
        let a = Echo::start();
        let other = SocketAddr::from(([127, 0, 0, 2], a.port()));
        if std::net::TcpListener::bind(other).is_ok() {
            return (a, Echo::start_at(other));
        }
    }
    panic!("no port that is free on 127.0.0.1 and 127.0.0.2");
}

fn conf(dns: &Dns, more: &str) -> String {
    format!("dns_resolver = {}\n{more}", dns.addr())
}

fn pool(dns: &Dns, target: &str, more: &str) -> Running {
    Running::with(json!({}), json!({}), &[target], &conf(dns, more))
}

fn single(dns: &Dns, host: &str, port: u16, more: &str) -> Running {
    let service = json!({"host": host, "port": port});
    Running::with(service, json!({}), &[], &conf(dns, more))
}

fn srv(weight: u16, port: u16, target: &str) -> DnsRecord {
    DnsRecord {
        ttl: 60,
        data: DnsData::Srv {
            priority: 1,
            weight,
            port,
            target: target.to_owned(),
        },
    }
}

#[test]
fn addresses_of_a_target_share_its_requests() {
    let (a, b) = two_on_one_port();
    let dns = Dns::start();
    dns.set_a("pool.test", 60, &["127.0.0.2", "127.0.0.1"]);
    let gateway = pool(&dns, &format!("pool.test:{}", a.port()), "");
    assert_eq!(gateway.statuses(10), [200; 10]);
    assert_eq!((a.count(), b.count()), (5, 5));
    assert_eq!(gateway.targets()[0].addresses.len(), 2);
    assert_eq!(dns.asked("pool.test", "A"), 1);
    let single = single(&dns, "pool.test", a.port(), "");
    assert_eq!(single.statuses(10), [200; 10]);
    assert_eq!((a.count(), b.count()), (10, 10), "so do those of a service");
}

#[test]
fn a_name_that_moves_is_followed() {
    let (a, b) = two_on_one_port();
    let dns = Dns::start();
    dns.set_a("pool.test", 1, &["127.0.0.1"]);
    let gateway = pool(&dns, &format!("pool.test:{}", a.port()), "");
    let single = single(&dns, "pool.test", a.port(), "");
    for gateway in [&gateway, &single] {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!((a.count(), b.count()), (2, 0));
    dns.set_a("pool.test", 60, &["127.0.0.2"]);
    for gateway in [&gateway, &single] {
        eventually("a request at the new address", deadline(), || {
            let before = b.count();
            assert_eq!(gateway.get("/").status, 200, "nobody is refused meanwhile");
            b.count() > before
        });
    }
}

#[test]
fn services_give_ports_and_weights() {
    let (a, b, unused) = (Echo::start(), Echo::start(), Echo::start());
    let dns = Dns::start();
    let mut last = srv(1, unused.port(), "one.test");
    if let DnsData::Srv { priority, .. } = &mut last.data {
        *priority = 2;
    }
    let records = vec![
        srv(3, a.port(), "one.test"),
        srv(1, b.port(), "two.test"),
        last,
    ];
    dns.set("svc.test", "SRV", DnsAnswer::Records(records));
    dns.set_a("one.test", 60, &["127.0.0.1"]);
    dns.set_a("two.test", 60, &["127.0.0.1"]);
    let gateway = pool(&dns, "svc.test:1", "");
    assert_eq!(gateway.statuses(40), [200; 40]);
    assert_eq!((a.count(), b.count(), unused.count()), (30, 10, 0));
    assert_eq!(dns.asked("svc.test", "A"), 0, "SRV comes first");
    let host = |use_srv_name: bool| {
        let upstream = json!({"use_srv_name": use_srv_name});
        let gateway = Running::with(json!({}), upstream, &["svc.test:1"], &conf(&dns, ""));
        gateway.get("/").json()["headers"]["host"][0].to_string()
    };
    assert_eq!(host(false), "\"svc.test:1\"");
    let named = host(true);
    let expected = [("one", a.port()), ("two", b.port())];
    let expected = expected.map(|(name, port)| format!("\"{name}.test:{port}\""));
    assert!(expected.contains(&named), "{named}");
    let single = single(&dns, "svc.test", 1, "");
    assert_eq!(
        single.statuses(4),
        [200; 4],
        "the port is that of the record"
    );
}

#[test]
fn old_addresses_serve_while_the_server_fails() {
    let a = Echo::start();
    let dns = Dns::start();
    dns.set_a("pool.test", 1, &["127.0.0.1"]);
    let pool = pool(
        &dns,
        &format!("pool.test:{}", a.port()),
        "dns_error_ttl = 0.1",
    );
    let single = single(&dns, "pool.test", a.port(), "dns_error_ttl = 0.1");
    for gateway in [&pool, &single] {
        assert_eq!(gateway.get("/").status, 200);
    }
    for failure in [
        DnsAnswer::ServFail,
        DnsAnswer::Refused,
        DnsAnswer::Silent,
        DnsAnswer::Garbage,
    ] {
        let before = dns.asked("pool.test", "A");
        dns.set("pool.test", "SRV", failure.clone());
        dns.set("pool.test", "A", failure.clone());
        let asked_again = || {
            for gateway in [&pool, &single] {
                assert_eq!(gateway.get("/").status, 200, "{failure:?}");
            }
            dns.asked("pool.test", "A") > before
        };
        eventually("another question", deadline(), asked_again);
    }
    assert_eq!(pool.health(), ["HEALTHCHECKS_OFF"]);
}

#[test]
fn a_name_that_is_gone_has_no_peer_until_it_is_back() {
    let a = Echo::start();
    for gone in [DnsAnswer::NxDomain, DnsAnswer::Empty] {
        let dns = Dns::start();
        dns.set("pool.test", "A", gone.clone());
        let more = "dns_not_found_ttl = 0.2";
        let gateway = pool(&dns, &format!("pool.test:{}", a.port()), more);
        let single = single(&dns, "pool.test", a.port(), more);
        for (gateway, message) in [
            (&gateway, "failure to get a peer from the ring-balancer"),
            (&single, "name resolution failed"),
        ] {
            let answer = gateway.get("/");
            assert_eq!(
                (answer.status, &answer.json()["message"]),
                (503, &json!(message))
            );
        }
        assert_eq!(gateway.health(), ["DNS_ERROR"]);
        dns.set_a("pool.test", 1, &["127.0.0.1"]);
        for gateway in [&gateway, &single] {
            eventually("the name is back", deadline(), || {
                gateway.get("/").status == 200
            });
        }
        dns.set("pool.test", "A", gone.clone());
        for gateway in [&gateway, &single] {
            eventually("the name is gone", deadline(), || {
                gateway.get("/").status == 503
            });
        }
    }
}

#[test]
fn one_of_two_targets_may_be_missing() {
    let a = Echo::start();
    let dns = Dns::start();
    dns.set_a("here.test", 60, &["127.0.0.1"]);
    let targets = [format!("here.test:{}", a.port()), "gone.test:1".to_owned()];
    let targets: Vec<_> = targets.iter().map(String::as_str).collect();
    let gateway = Running::with(json!({}), json!({}), &targets, &conf(&dns, ""));
    assert_eq!(gateway.statuses(4), [200; 4]);
    gateway.wait_for_health(&["HEALTHCHECKS_OFF", "DNS_ERROR"]);
}

#[test]
fn answers_that_do_not_fit_come_over_tcp() {
    let a = Echo::start();
    let dns = Dns::start();
    let records: Vec<_> = (0..100).map(|_| DnsRecord::ip(60, "127.0.0.1")).collect();
    dns.set("long.test", "A", DnsAnswer::Truncated(records));
    let gateway = single(&dns, "long.test", a.port(), "");
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(dns.asked("long.test", "A"), 2, "UDP, then TCP");
}

#[test]
fn those_who_wait_share_one_question() {
    let a = Echo::start();
    let dns = Dns::start();
    dns.set_a("one.test", 60, &["127.0.0.1"]);
    let gateway = single(&dns, "one.test", a.port(), "dns_order = A");
    let url = gateway.url("/");
    let requests: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            thread::spawn(move || sallyport_testkit::http::get(url).send().unwrap().status)
        })
        .collect();
    for request in requests {
        assert_eq!(request.join().unwrap(), 200);
    }
    assert_eq!(dns.asked("one.test", "A"), 1);
}

#[test]
fn names_of_the_hosts_file_need_no_server() {
    let a = Echo::start();
    let dns = Dns::start();
    let mut hosts = tempfile::NamedTempFile::new().unwrap();
    writeln!(hosts, "127.0.0.1 in.hosts").unwrap();
    let more = format!("dns_hostsfile = {}", hosts.path().display());
    let gateway = single(&dns, "in.hosts", a.port(), &more);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(dns.asked("in.hosts", "SRV") + dns.asked("in.hosts", "A"), 0);
}

#[test]
fn a_name_server_that_is_not_ours_is_understood() {
    let Some(dnsmasq) = foreign("dnsmasq", "Debian package dnsmasq-base") else {
        return;
    };
    let (a, b) = (Echo::start(), Echo::start());
    let port = free_port();
    let service = |port: u16, weight: u16| {
        format!("--srv-host=_http._tcp.svc.test,host.test,{port},0,{weight}")
    };
    let server = Program::new(dnsmasq)
        .args([
            "--keep-in-foreground",
            "--log-facility=-",
            "--conf-file=/dev/null",
        ])
        .args([
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--user=",
            "--group=",
        ])
        .args(["--listen-address=127.0.0.1", "--pid-file="])
        .arg(format!("--port={port}"))
        .arg("--host-record=host.test,127.0.0.1")
        .arg("--cname=other.test,host.test")
        .args([service(a.port(), 1), service(b.port(), 3)])
        .start();
    server.wait_for_line("started", deadline());
    let conf = format!("dns_resolver = 127.0.0.1:{port}");
    let targets = ["_http._tcp.svc.test:80"];
    let gateway = Running::with(json!({}), json!({}), &targets, &conf);
    assert_eq!(gateway.statuses(16), [200; 16]);
    assert_eq!((a.count(), b.count()), (4, 12));
    let service = json!({"host": "other.test", "port": a.port()});
    let alias = Running::with(service, json!({}), &[], &conf);
    assert_eq!(alias.get("/").status, 200);
}
