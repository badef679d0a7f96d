//! Random changes, good and bad, of all kinds together.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::refusals::references;
use super::*;

/// Entities that may be there: a kind, and how many of it.
const KINDS: [(Kind, u128); 15] = [
    (Kind::Service, 4),
    (Kind::Route, 5),
    (Kind::Consumer, 2),
    (Kind::ConsumerGroup, 2),
    (Kind::ConsumerGroupMember, 2),
    (Kind::Upstream, 2),
    (Kind::Target, 3),
    (Kind::Certificate, 2),
    (Kind::CaCertificate, 2),
    (Kind::Sni, 2),
    (Kind::Acl, 2),
    (Kind::KeyAuth, 2),
    (Kind::Plugin, 7),
    (Kind::KeySet, 1),
    (Kind::Vault, 3),
];

/// Numbers of entities: the hundreds are the place of the kind in `KINDS`.
fn number(kind: Kind, n: u128) -> u128 {
    let at = KINDS.iter().position(|(own, _)| *own == kind).unwrap();
    at as u128 * 100 + n
}

fn entity(kind: Kind, n: u128, variant: u8) -> Value {
    let at = usize::from(variant);
    let of = |kind: Kind, count: u128| to(number(kind, (n + u128::from(variant)) % count));
    let is_bad = variant >= 8;
    let one = |good: String| if is_bad { json!(7) } else { json!(good) };
    match kind {
        Kind::Service => {
            let host = ["127.0.0.1", "u0-0", "u1-1"][at % 3];
            let mut service = json!({"host": host, "name": format!("s{n}"),
                "port": if is_bad { 70_000 } else { 80 + u32::from(variant) }});
            match n {
                // what is for streams, or is not, stays so, mostly
                3 => {
                    let protocols = ["tcp", "tcp", "http", "udp"];
                    service["protocol"] = json!(protocols[at % 4]);
                }
                2 if variant == 3 => service["protocol"] = json!("tcp"),
                _ if variant % 3 == 1 => {
                    service["protocol"] = json!("https");
                    if n == 1 {
                        service["client_certificate"] = of(Kind::Certificate, 2);
                    }
                    if n == 2 {
                        service["tls_verify"] = json!(true);
                        service["ca_certificates"] = json!([of(Kind::CaCertificate, 2)["id"]]);
                    }
                }
                _ => {}
            }
            if matches!(variant, 5 | 6) {
                service["enabled"] = json!(false);
            }
            service
        }
        Kind::Route if n == 4 => {
            let port = if is_bad {
                json!("x")
            } else {
                json!(9_000 + u32::from(variant))
            };
            json!({"name": "stream", "protocols": ["tcp"], "destinations": [{"port": port}],
                   "service": to(number(Kind::Service, 3))})
        }
        Kind::Route => {
            let path = if is_bad {
                "~/(".to_owned()
            } else {
                format!("/{n}{variant}")
            };
            json!({"name": format!("r{n}"), "paths": [path], "service": of(Kind::Service, 4)})
        }
        Kind::Consumer => {
            json!({"username": one(format!("c{n}")), "custom_id": format!("{n}{variant}")})
        }
        Kind::ConsumerGroup => json!({"name": one(format!("g{n}-{}", variant % 2))}),
        Kind::ConsumerGroupMember => {
            json!({"consumer": to(number(Kind::Consumer, n)), "consumer_group": of(Kind::ConsumerGroup, 2)})
        }
        Kind::Upstream => {
            let slots = if is_bad { 1 } else { 10 + u32::from(variant) };
            let mut upstream = json!({"name": format!("u{n}-{}", variant % 2), "slots": slots});
            if variant.is_multiple_of(3) {
                upstream["client_certificate"] = of(Kind::Certificate, 2);
            }
            upstream
        }
        Kind::Target => {
            let host = if is_bad {
                "bad host".to_owned()
            } else {
                format!("127.0.0.1:{}", 80 + n)
            };
            json!({"target": host, "weight": variant, "upstream": of(Kind::Upstream, 2)})
        }
        Kind::Certificate if n == 1 && variant % 3 == 2 => {
            let of = |name: &str| format!("{{vault://v{}/{name}}}", variant % 2);
            json!({"cert": of("cert"), "key": of("key")})
        }
        Kind::Vault => {
            // the third is called something else now and then
            let prefix = match n {
                2 => format!("v2-{}", variant % 2),
                _ => format!("v{n}"),
            };
            let of = ["A_", "B_", "C_"][at % 3];
            let ty = if is_bad { "hcv" } else { "env" };
            json!({"prefix": prefix, "name": ty, "config": {"prefix": of}})
        }
        Kind::Certificate => {
            let pair = pair(at % 2);
            let cert = if is_bad { "bad" } else { &*pair.cert };
            json!({"cert": cert, "key": pair.key})
        }
        Kind::CaCertificate => {
            let cert = if is_bad {
                "bad"
            } else {
                authority(n as usize * 2 + at % 2)
            };
            json!({"cert": cert})
        }
        Kind::Sni => {
            let name = if is_bad {
                json!("*a*")
            } else {
                json!(format!("{n}.example"))
            };
            json!({"name": name, "certificate": of(Kind::Certificate, 2)})
        }
        Kind::Acl => json!({"group": one(format!("a{n}")), "consumer": of(Kind::Consumer, 2)}),
        Kind::KeyAuth => json!({"key": one(format!("k{n}")), "consumer": of(Kind::Consumer, 2)}),
        Kind::KeySet => json!({"name": one("keys".to_owned())}),
        _ => plugin_of(n, variant, of),
    }
}

fn plugin_of(n: u128, variant: u8, of: impl Fn(Kind, u128) -> Value) -> Value {
    let names = [
        "key-auth",
        "cors",
        "house-auth",
        "rate-limiting",
        "correlation-id",
        "session",
        "http-log",
    ];
    let mut plugin = json!({"name": names[n as usize]});
    match variant % 4 {
        0 => plugin["route"] = of(Kind::Route, 5),
        1 => plugin["service"] = of(Kind::Service, 4),
        2 if matches!(n, 2 | 3) => plugin["consumer"] = of(Kind::Consumer, 2),
        3 if n == 3 => plugin["consumer_group"] = of(Kind::ConsumerGroup, 2),
        _ => {}
    }
    if n == 3 {
        plugin["config"] = json!({"minute": variant + 1});
    }
    let secret = [
        "env/secret",
        "env/none",
        "v0/secret",
        "v1/secret",
        "v2-0/secret",
    ];
    let secret = format!("{{vault://{}}}", secret[usize::from(variant) % 5]);
    if n == 5 {
        plugin["config"] = json!({"secret": secret});
    }
    if n == 6 {
        plugin["config"] =
            json!({"http_endpoint": "http://127.0.0.1:1/", "headers": {"x": secret}});
    }
    if variant >= 8 {
        plugin["config"] = json!({"surely_unknown": 1});
    }
    if variant == 5 {
        plugin["enabled"] = json!(false);
    }
    plugin
}

type Model = BTreeMap<(usize, u128), u8>;

/// Takes out what refers to something that is not there, as control planes do.
fn cascade(model: &mut Model) {
    loop {
        let hangs = |((kind, n), variant): (&(usize, u128), &u8)| {
            let (kind, n) = (KINDS[*kind].0, *n);
            let references = references(kind, &entity(kind, n, *variant));
            let is_there = |(kind, to): (Kind, Uuid)| {
                let at = KINDS.iter().position(|(own, _)| *own == kind).unwrap();
                model.contains_key(&(at, (to.as_u128() & 0xffff) - at as u128 * 100))
            };
            references.unwrap().iter().any(|it| !is_there(it.to))
        };
        let found = model
            .iter()
            .find(|entry| hangs(*entry))
            .map(|(key, _)| *key);
        match found {
            Some(key) => _ = model.remove(&key),
            None => return,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn edits_lead_to_what_the_whole_would_be(
        rounds in proptest::collection::vec(proptest::collection::vec(
            (0..KINDS.len(), 0u128..7, proptest::option::weighted(0.85, 0u8..10)), 1..5), 1..14),
        has_admin_api in any::<bool>(),
    ) {
        let mut model = Model::new();
        for (at, (_, count)) in KINDS.iter().enumerate() {
            model.extend((0..*count).map(|n| ((at, n), (n % 3) as u8)));
        }
        cascade(&mut model);
        let mut lab = Lab::keeping_all(has_admin_api);
        let change = |key: &(usize, u128), variant: Option<u8>| {
            let (kind, n) = (KINDS[key.0].0, key.1);
            (kind, number(kind, n), variant.map(|variant| entity(kind, n, variant)))
        };
        let first: Vec<Change> = model.iter().map(|(key, it)| change(key, Some(*it))).collect();
        lab.take(&first);
        for round in rounds {
            let mut next = model.clone();
            for (kind, n, variant) in round {
                let n = n % KINDS[kind].1;
                match variant {
                    Some(variant) => _ = next.insert((kind, n), variant),
                    None => _ = next.remove(&(kind, n)),
                }
            }
            cascade(&mut next);
            let gone = model.keys().filter(|key| !next.contains_key(key));
            let mut changes: Vec<Change> = gone.map(|key| change(key, None)).collect();
            let new = next.iter().filter(|(key, variant)| model.get(key) != Some(variant));
            changes.extend(new.map(|(key, variant)| change(key, Some(*variant))));
            if !changes.is_empty() {
                lab.take(&changes);
            }
            model = next;
        }
    }
}
