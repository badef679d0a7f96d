//! Settings of name resolution.

use super::super::RecordKind::{A, Aaaa, Cname, Srv};
use super::*;

fn dns(file: &str) -> Dns {
    load(&format!("database = off\n{file}"), &[]).unwrap().0.dns
}

#[test]
fn defaults_are_kongs() {
    assert_eq!(dns(""), Dns::default());
}

#[test]
fn the_classic_set_is_read() {
    let dns = dns("dns_resolver = 10.0.0.1, 10.0.0.2:5353, [::1]:54, ::2\n\
         dns_hostsfile = /h\ndns_order = aaaa, a\ndns_valid_ttl = 5\ndns_stale_ttl = 0.5\n\
         dns_not_found_ttl = 3\ndns_error_ttl = 2\ndns_no_sync = on\nresolver_address = 9.9.9.9");
    let servers: Vec<_> = dns.servers.iter().map(ToString::to_string).collect();
    assert_eq!(
        servers,
        ["10.0.0.1:53", "10.0.0.2:5353", "[::1]:54", "[::2]:53"]
    );
    assert_eq!((dns.order, dns.last_first), (vec![Aaaa, A], false));
    assert_eq!(dns.hosts_file, PathBuf::from("/h"));
    let secs = |ttl: std::time::Duration| ttl.as_secs_f64();
    assert_eq!(dns.valid_ttl.map(secs), Some(5.0));
    assert_eq!(
        [dns.stale_ttl, dns.not_found_ttl, dns.error_ttl].map(secs),
        [0.5, 3.0, 2.0]
    );
    assert!(!dns.merge && !dns.srv_by_name);
}

#[test]
fn the_new_client_has_its_own_set() {
    let dns = dns(
        "new_dns_client = on\nresolver_address = 9.9.9.9\nresolver_error_ttl = 4\n\
         dns_resolver = 1.1.1.1",
    );
    assert_eq!(dns.servers[0].to_string(), "9.9.9.9:53");
    assert_eq!((dns.order, dns.srv_by_name), (vec![Srv, A], true));
    assert_eq!(dns.not_found_ttl, dns.error_ttl);
    assert_eq!(Dns::default().order, [Srv, A, Cname]);
}

#[test]
fn what_is_wrong_is_named() {
    let error = load(
        "database = off\ndns_resolver = dns.example\ndns_order = LAST\ndns_stale_ttl = -1\n\
         resolver_family = MX",
        &[],
    )
    .unwrap_err()
    .to_string();
    for part in [
        "dns_resolver = dns.example: \"dns.example\" is not address or address:port",
        "dns_order = LAST: names no kind of record",
        "dns_stale_ttl = -1",
        "resolver_family = MX: \"MX\" is not one of",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}
