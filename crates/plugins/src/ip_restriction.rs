//! `ip-restriction`: lets clients pass or not by their address.

use std::net::IpAddr;

use http::StatusCode;
use ipnet::IpNet;
use sallyport_model::schema::{EntityCheck, Field, PROTOCOLS, Record, each};
use serde::Deserialize;
use serde_json::Value;

use crate::exchange::{Env, Exchange, Flow, Handler, Reply};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
The address is the client's, after `trusted_ips` and `real_ip_header` of `kong.conf`. `deny` is looked at
first. A client that may not pass gets `status`, or 403, with `message`, or `IP address not allowed: <address>`.
An IPv4 address that arrives over an IPv6 socket (`::ffff:a.b.c.d`) is the IPv4 address. On streams (`tcp`, `tls`
in `protocols`) a client that may not pass is disconnected, and the access log has the status.
";

/// The plugin, as the registry lists it.
pub(crate) struct IpRestriction;

impl Plugin for IpRestriction {
    fn name(&self) -> &'static str {
        "ip-restriction"
    }

    fn priority(&self) -> i32 {
        990
    }

    fn summary(&self) -> &'static str {
        "lets clients pass or not by their address"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn protocols(&self) -> &'static [&'static str] {
        &["http", "https", "tcp", "tls", "grpc", "grpcs"]
    }

    fn protocols_allowed(&self) -> &'static [&'static str] {
        PROTOCOLS
    }

    fn schema(&self) -> Record {
        let networks = |name| Field::array(name, each::string().check(ip_or_cidr));
        Record::new([
            networks("allow").about("Addresses, or networks such as `10.0.0.0/8`, that may pass."),
            networks("deny").about("Addresses or networks that may not pass."),
            Field::number("status")
                .between(200, 599)
                .about("Status of a refusal; 403 when unset."),
            Field::string("message").about("What a refusal says."),
        ])
        .check(EntityCheck::AtLeastOneOf(&["allow", "deny"]))
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let status = match config.status {
            Some(status) => StatusCode::from_u16(status as u16).map_err(CompileError::value)?,
            None => StatusCode::FORBIDDEN,
        };
        Ok(Box::new(Active {
            allow: Networks::new(&config.allow.unwrap_or_default()),
            deny: Networks::new(&config.deny.unwrap_or_default()),
            status,
            message: config.message,
        }))
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(address)
}

fn ip_or_cidr(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    match network(text) {
        Some(_) => Ok(()),
        None => Err(format!("invalid ip or cidr range: '{text}'")),
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    allow: Option<Vec<String>>,
    #[serde(default)]
    deny: Option<Vec<String>>,
    #[serde(default)]
    status: Option<f64>,
    #[serde(default)]
    message: Option<String>,
}

struct Active {
    allow: Networks,
    deny: Networks,
    status: StatusCode,
    message: Option<String>,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, _env: &Env<'_>) -> Flow {
        let address = exchange.client_ip.to_canonical();
        let may_pass =
            !self.deny.contain(address) && (self.allow.is_empty() || self.allow.contain(address));
        if may_pass {
            return Flow::Continue;
        }
        let message = self.message.clone();
        let message = message.unwrap_or_else(|| format!("IP address not allowed: {address}"));
        Flow::Respond(Reply::error(self.status, message))
    }
}

/// Networks as ranges that neither touch nor overlap, lowest first: one search an address,
/// however many there are.
#[derive(Debug, Default)]
struct Networks {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// Of texts that [`ip_or_cidr`] accepts.
    fn new(texts: &[String]) -> Networks {
        let mut networks = Networks::default();
        for network in texts.iter().filter_map(|text| network(text)) {
            let range = (number(network.network()), number(network.broadcast()));
            match network {
                IpNet::V4(_) => networks.v4.push(range),
                IpNet::V6(_) => networks.v6.push(range),
            }
        }
        networks.v4 = merged(networks.v4);
        networks.v6 = merged(networks.v6);
        networks
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    fn contain(&self, address: IpAddr) -> bool {
        let ranges = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let address = number(address);
        let after = ranges.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= ranges[after - 1].1
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{Bench, Seen, exchange, validate};

    #[track_caller]
    fn check(config: Value, address: &str, expected: Seen) {
        let mut exchange = exchange(http::Request::get("/"));
        exchange.client_ip = address.parse().unwrap();
        let bench = Bench::new(&IpRestriction, config);
        assert_eq!(bench.seen(&mut exchange), expected, "{address}");
    }

    fn refused(address: &str) -> Seen {
        Seen::refused(403, &format!("IP address not allowed: {address}"))
    }

    #[test]
    fn lists_decide_and_deny_goes_first() {
        let allow = || json!({"allow": ["10.0.0.0/8", "192.168.1.7", "2001:db8::/32"]});
        for good in ["10.1.2.3", "192.168.1.7", "2001:db8::1", "::ffff:10.9.9.9"] {
            check(allow(), good, Seen::Continued);
        }
        for bad in [
            "11.0.0.0",
            "9.255.255.255",
            "192.168.1.8",
            "2001:db9::",
            "::a00:1",
        ] {
            check(allow(), bad, refused(bad));
        }
        check(allow(), "::ffff:11.0.0.1", refused("11.0.0.1"));
        let deny = || json!({"deny": ["10.0.0.0/8", "::1"]});
        check(deny(), "10.0.0.1", refused("10.0.0.1"));
        check(deny(), "::1", refused("::1"));
        check(deny(), "11.0.0.1", Seen::Continued);
        let both = || json!({"allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"]});
        check(both(), "10.2.0.1", Seen::Continued);
        check(both(), "10.1.0.1", refused("10.1.0.1"));
        // a network may be written with the address of a host in it
        check(
            json!({"allow": ["10.1.2.3/8"]}),
            "10.200.0.1",
            Seen::Continued,
        );
        check(
            json!({"deny": ["0.0.0.0/0"]}),
            "1.2.3.4",
            refused("1.2.3.4"),
        );
        check(json!({"deny": ["0.0.0.0/0"]}), "::5", Seen::Continued);
    }

    #[test]
    fn a_refusal_may_say_something_else() {
        let config = json!({"deny": ["1.2.3.4"], "status": 404, "message": "gone"});
        check(config, "1.2.3.4", Seen::refused(404, "gone"));
    }

    #[test]
    fn bad_settings_are_named() {
        let check = |config, expected: &str| {
            assert_eq!(validate(&IpRestriction, config).unwrap_err(), expected);
        };
        check(
            json!({"allow": ["1.2.3", "1.2.3.4/33", "::/0"], "status": 99}),
            "allow[0]: invalid ip or cidr range: '1.2.3'; allow[1]: invalid ip or cidr range: \
             '1.2.3.4/33'; status: value should be between 200 and 599",
        );
        check(
            json!({}),
            "at least one of these fields must be non-empty: 'allow', 'deny'",
        );
    }

    proptest! {
        #[test]
        fn ranges_contain_what_the_networks_contain(
            networks in proptest::collection::vec((any::<u32>(), 0_u8..=32), 0..12),
            addresses in proptest::collection::vec(any::<u32>(), 1..12),
        ) {
            let texts: Vec<String> = networks
                .iter()
                .map(|(address, prefix)| format!("{}/{prefix}", std::net::Ipv4Addr::from(*address)))
                .collect();
            let nets: Vec<IpNet> = texts.iter().map(|text| text.parse().unwrap()).collect();
            let found = Networks::new(&texts);
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            let random = addresses.iter().map(|raw| IpAddr::from(std::net::Ipv4Addr::from(*raw)));
            for address in edges.chain(random) {
                prop_assert_eq!(
                    found.contain(address),
                    nets.iter().any(|net| net.contains(&address))
                );
            }
        }
    }
}
