//! What listeners offer to TLS clients, and what upstreams are shown.

use sallyport_runtime::tls::Offer;
use sallyport_runtime::tls::suites::{tls12_names, tls12_suite};

use super::CertificateSetting;
use super::reader::Reader;

/// Sessions that a megabyte of nginx's cache holds.
const SESSIONS_PER_MIB: u64 = 4000;

/// `ssl_cipher_suite` and what depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suite {
    Modern,
    Intermediate,
    Old,
    Custom,
}

/// The offer of all listeners that end TLS.
pub(super) fn offer(reader: &mut Reader) -> Offer {
    let suite = reader.choice(
        "ssl_cipher_suite",
        &[
            ("intermediate", Suite::Intermediate),
            ("modern", Suite::Modern),
            ("old", Suite::Old),
            ("custom", Suite::Custom),
        ],
    );
    let cache = reader.bytes("ssl_session_cache_size") * SESSIONS_PER_MIB / (1 << 20);
    let standard = Offer {
        tickets: reader.flag("ssl_session_tickets"),
        // somebody who wants none writes 0
        sessions: usize::try_from(cache).unwrap_or(usize::MAX),
        ..Offer::default()
    };
    match suite {
        Suite::Modern => Offer {
            tls12: false,
            ..standard
        },
        Suite::Intermediate => standard,
        Suite::Old => {
            let message = "TLS 1.0 and 1.1 are not in this build; the suite is intermediate";
            reader.settings.warn("ssl_cipher_suite", message);
            standard
        }
        Suite::Custom => custom(reader, standard),
    }
}

fn custom(reader: &mut Reader, standard: Offer) -> Offer {
    let words = reader.text("ssl_protocols").unwrap_or_default();
    let has = |version: &str| words.split_whitespace().any(|word| word == version);
    let (tls12, tls13) = (has("TLSv1.2"), has("TLSv1.3"));
    if !tls12 && !tls13 {
        reader.problem("ssl_protocols", "must have TLSv1.2, TLSv1.3 or both");
    }
    if has("TLSv1") || has("TLSv1.1") {
        let message = "TLS 1.0 and 1.1 are not in this build and are left out";
        reader.settings.warn("ssl_protocols", message);
    }
    let names = reader.text("ssl_ciphers").unwrap_or_default();
    let names: Vec<&str> = names.split(':').filter(|name| !name.is_empty()).collect();
    let suites: Vec<_> = names.iter().filter_map(|name| tls12_suite(name)).collect();
    if !names.is_empty() && suites.is_empty() && tls12 {
        let known = tls12_names().join(":");
        reader.problem(
            "ssl_ciphers",
            format!("has no suite of this build; it has {known}"),
        );
    } else if suites.len() < names.len() {
        let unknown: Vec<&str> = names
            .iter()
            .filter(|name| tls12_suite(name).is_none())
            .copied()
            .collect();
        let message = format!("not in this build and left out: {}", unknown.join(":"));
        reader.settings.warn("ssl_ciphers", message);
    }
    Offer {
        tls12: tls12 || !tls13,
        tls13,
        suites: (!suites.is_empty()).then_some(suites),
        own_order: reader.flag("ssl_prefer_server_ciphers"),
        ..standard
    }
}

/// What upstreams are shown that ask for a certificate, unless service or upstream has its own.
pub(super) fn client(reader: &mut Reader) -> Option<CertificateSetting> {
    if !reader.flag("client_ssl") {
        return None;
    }
    let certificate = reader.text("client_ssl_cert");
    let key = reader.text("client_ssl_cert_key");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(CertificateSetting { certificate, key }),
        (None, _) => {
            reader.problem("client_ssl_cert", "must be set when client_ssl is on");
            None
        }
        (_, None) => {
            reader.problem("client_ssl_cert_key", "must be set when client_ssl is on");
            None
        }
    }
}

/// Whether upstreams are verified where a service says nothing, and the longest chain.
pub(super) fn verify(reader: &mut Reader) -> (bool, Option<u8>) {
    const DEPTH: &str = "nginx_proxy_proxy_ssl_verify_depth";
    let verify = reader.flag("nginx_proxy_proxy_ssl_verify");
    let depth = reader.is_set(DEPTH).then(|| reader.number(DEPTH, 0..=64));
    (verify, depth)
}
