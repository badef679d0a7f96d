//! The audit log's own settings, TOML; docs/audit_log.md describes them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use rustls::{ClientConfig, RootCertStore};
use sallyport_runtime::tls::trust_store;
use serde::Deserialize;

use super::error::AuditLogError;
use crate::post::trusting;

/// Where the log is, what it takes from others and where it goes.
#[derive(Clone, Debug)]
pub struct AuditLogSettings {
    /// Directory of `audit.db` and `audit_log.key`.
    pub directory: PathBuf,
    pub(super) receive: Option<Receive>,
    pub(super) forward: Vec<Forward>,
    pub(super) webhook_ca: Vec<String>,
}

/// Port 8071.
#[derive(Clone, Debug)]
pub(super) struct Receive {
    pub(super) listen: SocketAddr,
    pub(super) allow: Vec<IpNet>,
    pub(super) client_ca: Option<Arc<RootCertStore>>,
    pub(super) message_bytes_max: usize,
    pub(super) connections_max: usize,
    pub(super) connections_per_address_max: usize,
    pub(super) records_per_second_max: u32,
    pub(super) log_bytes_max: u64,
}

impl Receive {
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow.iter().any(|network| network.contains(&address))
    }
}

/// A collector.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    /// As written, which names its place in the log.
    pub(super) to: String,
    pub(super) by: Transport,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) format: Form,
    /// For `Transport::Tls`.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Tls,
    Udp,
}

/// The form of a record elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Cef,
    Json,
    /// `{"event": <JSON>}`.
    Cps,
}

impl Form {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Form::Cef => "cef",
            Form::Json => "json",
            Form::Cps => "cps",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Form> {
        [Form::Cef, Form::Json, Form::Cps]
            .into_iter()
            .find(|form| form.name() == name)
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    receive: Option<RawReceive>,
    forward: Vec<RawForward>,
    webhook: RawWebhook,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawReceive {
    listen: Option<String>,
    allow: Option<Vec<String>>,
    client_ca: Option<String>,
    message_bytes_max: Option<usize>,
    connections_max: Option<usize>,
    connections_per_address_max: Option<usize>,
    records_per_second_max: Option<u32>,
    log_bytes_max: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawForward {
    to: String,
    format: Option<String>,
    ca: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawWebhook {
    ca: Option<Vec<String>>,
}

fn bad(key: impl Into<String>, reason: impl ToString) -> AuditLogError {
    AuditLogError::Setting {
        key: key.into(),
        reason: reason.to_string(),
    }
}

impl AuditLogSettings {
    /// A log in `directory` that takes nothing from others and goes nowhere by itself.
    pub fn quiet(directory: impl Into<PathBuf>) -> AuditLogSettings {
        AuditLogSettings {
            directory: directory.into(),
            receive: None,
            forward: Vec::new(),
            webhook_ca: vec!["system".to_owned()],
        }
    }

    /// A log in `directory` with the settings of a TOML text.
    ///
    /// # Errors
    /// The first setting that cannot be used, by its key. Reads the certificates it names.
    pub fn parse(
        directory: impl Into<PathBuf>,
        text: &str,
    ) -> Result<AuditLogSettings, AuditLogError> {
        let raw: Raw = toml::from_str(text).map_err(|it| bad("audit log settings", it))?;
        let forward: Result<Vec<Forward>, AuditLogError> =
            raw.forward.into_iter().map(forward).collect();
        let forward = forward?;
        for (at, one) in forward.iter().enumerate() {
            if forward[..at].iter().any(|earlier| earlier.to == one.to) {
                return Err(bad(
                    "forward.to",
                    format!("{:?} stands there twice", one.to),
                ));
            }
        }
        Ok(AuditLogSettings {
            receive: raw.receive.map(receive).transpose()?,
            forward,
            webhook_ca: raw.webhook.ca.unwrap_or_else(|| vec!["system".to_owned()]),
            ..AuditLogSettings::quiet(directory)
        })
    }
}

fn receive(raw: RawReceive) -> Result<Receive, AuditLogError> {
    let port = sallyport_contract::entry("audit_log").port().get();
    let listen = match raw.listen {
        None => SocketAddr::from(([0, 0, 0, 0], port)),
        Some(text) => match (text.parse(), text.parse()) {
            (Ok(addr), _) => addr,
            (_, Ok(ip)) => SocketAddr::new(ip, port),
            _ => return Err(bad("receive.listen", format!("{text:?} is no address"))),
        },
    };
    let allow = raw
        .allow
        .unwrap_or_else(|| ["127.0.0.0/8", "::1"].map(str::to_owned).into());
    let network = |text: &String| {
        let one = IpAddr::from_str(text).map(IpNet::from);
        one.or_else(|_| IpNet::from_str(text))
            .map_err(|_| bad("receive.allow", format!("{text:?} is no network")))
    };
    let client_ca = match raw.client_ca {
        None => None,
        Some(path) => {
            let roots = trust_store(&[path]).map_err(|it| bad("receive.client_ca", it))?;
            Some(Arc::new(roots))
        }
    };
    let receive = Receive {
        listen,
        allow: allow.iter().map(network).collect::<Result<_, _>>()?,
        client_ca,
        message_bytes_max: raw.message_bytes_max.unwrap_or(64 * 1024),
        connections_max: raw.connections_max.unwrap_or(512),
        connections_per_address_max: raw.connections_per_address_max.unwrap_or(32),
        records_per_second_max: raw.records_per_second_max.unwrap_or(1_000),
        log_bytes_max: raw.log_bytes_max.unwrap_or(10 << 30),
    };
    // RFC 5424 section 6.1: every receiver takes at least 480 octets
    if !(480..=1 << 20).contains(&receive.message_bytes_max) {
        return Err(bad(
            "receive.message_bytes_max",
            "must be from 480 to 1048576",
        ));
    }
    for (key, value) in [
        ("receive.connections_max", receive.connections_max),
        (
            "receive.connections_per_address_max",
            receive.connections_per_address_max,
        ),
        (
            "receive.records_per_second_max",
            receive.records_per_second_max as usize,
        ),
    ] {
        if value == 0 {
            return Err(bad(key, "must be above 0"));
        }
    }
    Ok(receive)
}

fn forward(raw: RawForward) -> Result<Forward, AuditLogError> {
    let key = "forward.to";
    let wrong = || {
        let text = &raw.to;
        bad(
            key,
            format!("{text:?} is none of tls://HOST:PORT, tcp://HOST:PORT, udp://HOST:PORT"),
        )
    };
    let uri: http::Uri = raw.to.parse().map_err(|_| wrong())?;
    let (by, standard) = match uri.scheme_str() {
        Some("tcp") => (Transport::Tcp, 514),
        Some("tls") => (Transport::Tls, 6514),
        Some("udp") => (Transport::Udp, 514),
        _ => return Err(wrong()),
    };
    let host = uri
        .host()
        .filter(|host| !host.is_empty())
        .ok_or_else(wrong)?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong());
    }
    let format = match raw.format.as_deref() {
        None => Form::default(),
        Some(name) => Form::from_name(name)
            .filter(|form| *form != Form::Cps)
            .ok_or_else(|| {
                bad(
                    "forward.format",
                    format!("{name:?} is neither cef nor json"),
                )
            })?,
    };
    let tls = match by {
        Transport::Tls => {
            let ca = raw.ca.unwrap_or_else(|| vec!["system".to_owned()]);
            Some(trusting(&ca).map_err(|it| bad("forward.ca", it))?)
        }
        Transport::Tcp | Transport::Udp => None,
    };
    Ok(Forward {
        by,
        host: host.trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(standard),
        format,
        tls,
        to: raw.to,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let error = AuditLogSettings::parse("x", text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn settings_have_defaults() {
        let settings = AuditLogSettings::parse("x", "").unwrap();
        assert!(settings.receive.is_none() && settings.forward.is_empty());
        let settings = AuditLogSettings::parse("x", "[receive]").unwrap();
        let receive = settings.receive.unwrap();
        assert_eq!(receive.listen.to_string(), "0.0.0.0:8071");
        for (address, allowed) in [
            ("127.0.0.2", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.1", false),
            ("::2", false),
        ] {
            assert_eq!(
                receive.allows(address.parse().unwrap()),
                allowed,
                "{address}"
            );
        }
        let text = "[[forward]]\nto = \"tcp://log.example\"\n[[forward]]\nto = \"udp://[::1]:99\"\nformat = \"json\"";
        let settings = AuditLogSettings::parse("x", text).unwrap();
        let first = &settings.forward[0];
        assert_eq!((first.host.as_str(), first.port), ("log.example", 514));
        let second = &settings.forward[1];
        assert_eq!((second.host.as_str(), second.port), ("::1", 99));
        assert_eq!((second.by, second.format), (Transport::Udp, Form::Json));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        refused("[recieve]", "recieve");
        refused("[receive]\nlisten = \"x\"", "receive.listen");
        refused("[receive]\nallow = [\"10.0.0.0/33\"]", "receive.allow");
        refused("[receive]\nclient_ca = \"/no/file\"", "receive.client_ca");
        refused("[receive]\nmessage_bytes_max = 479", "480");
        refused("[receive]\nconnections_max = 0", "receive.connections_max");
        refused("[[forward]]\nto = \"http://x\"", "forward.to");
        refused("[[forward]]\nto = \"tcp://x/y\"", "forward.to");
        refused("[[forward]]", "forward.to");
        refused(
            "[[forward]]\nto = \"tcp://x\"\nformat = \"cps\"",
            "forward.format",
        );
        refused(
            "[[forward]]\nto = \"tcp://x\"\n[[forward]]\nto = \"tcp://x\"",
            "twice",
        );
        refused(
            "[[forward]]\nto = \"tls://x\"\nca = [\"/no/file\"]",
            "forward.ca",
        );
    }
}
