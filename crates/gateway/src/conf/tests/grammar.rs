use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::super::file::{BadLine, Line, lines, value};
use super::super::listener::{Keepalive, ListenHost, Listener, ListenerError, listeners};
use super::super::names::nearest;

#[test]
fn values_lose_comments_and_blanks() {
    #[track_caller]
    fn check(raw: &str, want: &str) {
        assert_eq!(value(raw), want);
    }
    check("", "");
    check("  a b  ", "a b");
    check("a # comment # more", "a");
    check("# comment", "");
    check(r"p\#ss # word", "p#ss");
    check(r"\#\#", "##");
    check(r"a\\# b", r"a\# b");
}

#[test]
fn lines_keep_number_and_order() {
    let text = "\u{feff}# head\n\n a = 1 # one\nb=\r\nno equals\n= 3\nc = x=y\n";
    let line = |number, name: &str, value: &str| Line {
        number,
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let bad = |number, text: &str| BadLine {
        number,
        text: text.to_owned(),
    };
    let want_good = vec![line(3, "a", "1"), line(4, "b", ""), line(7, "c", "x=y")];
    assert_eq!(
        lines(text),
        (want_good, vec![bad(5, "no equals"), bad(6, "= 3")])
    );
}

fn plain(host: ListenHost, port: u16) -> Listener {
    Listener {
        host,
        port,
        tls: false,
        http2: false,
        proxy_protocol: false,
        udp: false,
        deferred: false,
        bind: false,
        reuse_port: false,
        backlog: None,
        ipv6_only: None,
        keepalive: None,
    }
}

fn ip(text: &str) -> ListenHost {
    ListenHost::Ip(text.parse::<IpAddr>().unwrap())
}

#[test]
fn listeners_of_every_form() {
    #[track_caller]
    fn check(text: &str, want: &[Listener]) {
        assert_eq!(listeners(text).as_deref(), Ok(want));
    }
    let any = || plain(ip("0.0.0.0"), 8000);
    check("off", &[]);
    check(" OFF ", &[]);
    check("0.0.0.0:8000", &[any()]);
    check("127.0.0.1:0", &[plain(ip("127.0.0.1"), 0)]);
    check("[::]:8000", &[plain(ip("::"), 8000)]);
    check(
        "[::1]:8443 ssl ipv6only=off",
        &[Listener {
            tls: true,
            ipv6_only: Some(false),
            ..plain(ip("::1"), 8443)
        }],
    );
    check(
        "localhost:8000",
        &[plain(ListenHost::Name("localhost".into()), 8000)],
    );
    check(
        "0.0.0.0:8000 ssl http2 proxy_protocol deferred bind reuseport backlog=16384",
        &[Listener {
            tls: true,
            http2: true,
            proxy_protocol: true,
            deferred: true,
            bind: true,
            reuse_port: true,
            backlog: Some(16384),
            ..any()
        }],
    );
    check(
        "0.0.0.0:8000 reuseport, 0.0.0.0:8443  http2 ssl",
        &[
            Listener {
                reuse_port: true,
                ..any()
            },
            Listener {
                tls: true,
                http2: true,
                ..plain(ip("0.0.0.0"), 8443)
            },
        ],
    );
    let keep = |keepalive| {
        [Listener {
            keepalive: Some(keepalive),
            ..any()
        }]
    };
    check("0.0.0.0:8000 so_keepalive=on", &keep(Keepalive::On));
    check("0.0.0.0:8000 so_keepalive=off", &keep(Keepalive::Off));
    check(
        "0.0.0.0:8000 so_keepalive=30m::10",
        &keep(Keepalive::Times {
            idle: Some(Duration::from_secs(1800)),
            interval: None,
            count: Some(10),
        }),
    );
}

#[test]
fn what_is_no_listener_says_why() {
    #[track_caller]
    fn check(text: &str, want: &[ListenerError]) {
        assert_eq!(listeners(text).unwrap_err(), want);
    }
    use ListenerError::{Address, Argument, Empty, Flag, Port, Udp};
    check("", &[Empty]);
    check("0.0.0.0:8000,", &[Empty]);
    check("8000", &[Address("8000".into())]);
    check("::1:8000", &[Address("::1:8000".into())]);
    check("[::1:8000", &[Address("[::1:8000".into())]);
    check("300.0.0.1:80", &[Address("300.0.0.1:80".into())]);
    check("a b:80", &[Address("a".into())]);
    check("0.0.0.0:65536", &[Port("0.0.0.0:65536".into())]);
    check("0.0.0.0:+80", &[Port("0.0.0.0:+80".into())]);
    check("0.0.0.0:", &[Port("0.0.0.0:".into())]);
    check("0.0.0.0:80 sssl", &[Flag("sssl".into())]);
    check("0.0.0.0:80 tls=on", &[Flag("tls=on".into())]);
    check("0.0.0.0:80 udp", &[Udp]);
    check("0.0.0.0:80 backlog=0", &[Argument("backlog=0".into())]);
    check("0.0.0.0:80 ipv6only=1", &[Argument("ipv6only=1".into())]);
    check(
        "0.0.0.0:80 so_keepalive=::",
        &[Argument("so_keepalive=::".into())],
    );
    check(
        "0.0.0.0:80 so_keepalive=1x::",
        &[Argument("so_keepalive=1x::".into())],
    );
    check(
        "x, 0.0.0.0:80 y, 0.0.0.0:81",
        &[Address("x".into()), Flag("y".into())],
    );
}

#[test]
fn typos_find_their_name() {
    #[track_caller]
    fn check(name: &str, want: Option<&str>) {
        assert_eq!(nearest(name), want);
    }
    check("proxy_lisen", Some("proxy_listen"));
    check("Proxy_Listen", Some("proxy_listen"));
    check("databse", Some("database"));
    check("cluster_control_plan", Some("cluster_control_plane"));
    check("version", None);
    check("something_else_entirely", None);
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "[ -~\n\\\\#=]{0,200}", other in "\\PC{0,60}") {
        let (good, bad) = lines(&text);
        prop_assert!(good.len() + bad.len() <= text.lines().count());
        let _ = super::load(&text, &[]);
        let _ = listeners(&other);
        let _ = listeners(&text);
        let _ = nearest(&other);
    }

    #[test]
    fn escaped_values_come_back(text in "[a-z#]{0,20}") {
        let escaped = text.replace('#', "\\#");
        prop_assert_eq!(value(&escaped), text);
    }

    #[test]
    fn any_property_value_is_judged_without_panic(
        key in proptest::sample::select(vec![
            "role", "proxy_listen", "trusted_ips", "port_maps", "cluster_control_plane",
            "cluster_dp_labels", "nginx_http_client_max_body_size", "headers", "real_ip_header",
            "upstream_keepalive_idle_timeout", "node_id", "log_level", "proxy_access_log",
            "nginx_main_worker_processes", "sallyport_kong_version", "cluster_max_payload",
        ]),
        value in "\\PC{0,40}",
    ) {
        let variable = format!("KONG_{}", key.to_uppercase());
        let _ = super::load("", &[(&variable, &value), ("KONG_ROLE", "data_plane")]);
    }
}
