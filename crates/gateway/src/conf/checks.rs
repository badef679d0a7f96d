//! Rules between properties.

use super::reader::Reader;
use super::{Conf, ListenHost, Role};

/// Notes every combination that cannot work.
pub(super) fn check(conf: &Conf, reader: &mut Reader) {
    database(conf, reader);
    let streams_alone = conf.role == Role::Traditional && !conf.stream_listen.is_empty();
    if conf.proxy_listen.is_empty()
        && !streams_alone
        && reader.text("proxy_listen").is_none_or(|text| text == "off")
    {
        reader.problem(
            "proxy_listen",
            "a gateway needs at least one listener for traffic",
        );
    }
    same_address(conf, reader);
    without_effect(conf, reader);
    if conf.role == Role::Traditional && conf.declarative.is_none() {
        let message = "is not set: every request will be answered 404";
        reader.settings.warn("declarative_config", message);
    }
}

/// Warns about what was asked for and will not happen.
fn without_effect(conf: &Conf, reader: &mut Reader) {
    for (key, listeners) in [
        ("proxy_listen", &conf.proxy_listen),
        ("status_listen", &conf.status_listen),
    ] {
        if listeners.iter().any(|listener| listener.deferred) {
            let message = "the flag deferred has no effect in this build";
            reader.settings.warn(key, message);
        }
    }
}

fn database(conf: &Conf, reader: &mut Reader) {
    if reader.text("database").as_deref() == Some("off") {
        return;
    }
    let message = match conf.role {
        Role::DataPlane => "must be off with role = data_plane",
        Role::Traditional => {
            "must be off: this gateway has no database; give it a declarative_config, or a \
             control plane with role = data_plane"
        }
    };
    reader.problem("database", message);
}

/// Two listeners on one port of overlapping addresses cannot both be opened.
fn same_address(conf: &Conf, reader: &mut Reader) {
    let properties = [
        ("proxy_listen", &conf.proxy_listen),
        ("stream_listen", &conf.stream_listen),
        ("status_listen", &conf.status_listen),
        ("admin_listen", &conf.admin_listen),
    ];
    let all: Vec<_> = properties
        .into_iter()
        .flat_map(|(key, listeners)| listeners.iter().map(move |listener| (key, listener)))
        .filter(|(_, listener)| listener.port != 0)
        .collect();
    for (at, (key, listener)) in all.iter().enumerate() {
        let clash = all[..at].iter().find(|(_, earlier)| {
            earlier.port == listener.port
                && earlier.udp == listener.udp
                && overlap(&earlier.host, &listener.host)
        });
        if let Some((earlier_key, earlier)) = clash {
            let message = format!("{listener} is the address of {earlier} in {earlier_key}");
            reader.problem(key, message);
        }
    }
}

/// Equal, or one is the unspecified address of the other's family. Names are compared as text.
fn overlap(a: &ListenHost, b: &ListenHost) -> bool {
    match (a, b) {
        (ListenHost::Ip(a), ListenHost::Ip(b)) => {
            a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())
        }
        _ => a == b,
    }
}
