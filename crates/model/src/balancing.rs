//! The parts of an upstream that say how it is balanced and watched.
//!
//! As in `entities`: decoded from values that passed the schema. What is null there counts as
//! nothing: no statuses, a limit of 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// How an upstream chooses a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are the algorithms")]
pub enum Algorithm {
    RoundRobin,
    ConsistentHashing,
    LeastConnections,
    Latency,
    StickySessions,
}

/// What of a request is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the inputs")]
pub enum HashOn {
    #[default]
    None,
    Consumer,
    Ip,
    Header,
    Cookie,
    Path,
    QueryArg,
    UriCapture,
}

/// What a prober does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the protocols")]
pub enum CheckType {
    Tcp,
    Http,
    Https,
    Grpc,
    Grpcs,
}

/// How the health of an upstream's targets is found out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Healthchecks {
    /// By asking.
    pub active: Active,
    /// By watching traffic.
    pub passive: Passive,
    /// The upstream serves while more than this percentage of its weight is available; 0: always.
    #[serde(default, deserialize_with = "or_default")]
    pub threshold: f64,
}

/// Health checks by asking.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Active {
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: CheckType,
    /// Seconds for one probe.
    #[serde(default, deserialize_with = "or_default")]
    pub timeout: f64,
    /// Probes at once.
    #[serde(default, deserialize_with = "or_default")]
    pub concurrency: u32,
    /// Path of the request.
    #[serde(default, deserialize_with = "or_default")]
    pub http_path: String,
    /// Server name for TLS, in place of the target's.
    #[serde(default)]
    pub https_sni: Option<String>,
    /// Whether the certificate is verified.
    pub https_verify_certificate: bool,
    /// Header lines of the request.
    #[serde(default, deserialize_with = "or_default")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Probes of healthy targets, and what makes one healthy.
    pub healthy: ActiveHealthy,
    /// Probes of unhealthy targets, and what makes one unhealthy.
    pub unhealthy: ActiveUnhealthy,
}

/// Probes of healthy targets.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ActiveHealthy {
    /// Seconds between two probes; 0: none.
    #[serde(default, deserialize_with = "or_default")]
    pub interval: f64,
    /// What makes a target healthy.
    #[serde(flatten)]
    pub limits: Healthy,
}

/// Probes of unhealthy targets.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ActiveUnhealthy {
    /// Seconds between two probes; 0: none.
    #[serde(default, deserialize_with = "or_default")]
    pub interval: f64,
    /// What makes a target unhealthy.
    #[serde(flatten)]
    pub limits: Unhealthy,
}

/// Health checks by watching traffic.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Passive {
    /// What makes a target healthy.
    pub healthy: Healthy,
    /// What makes a target unhealthy.
    pub unhealthy: Unhealthy,
}

/// What makes a target healthy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Healthy {
    /// Statuses that count as success.
    #[serde(default, deserialize_with = "or_default")]
    pub http_statuses: Vec<u16>,
    /// Successes in a row; 0: never.
    #[serde(default, deserialize_with = "or_default")]
    pub successes: u8,
}

/// What makes a target unhealthy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Unhealthy {
    /// Statuses that count as failure.
    #[serde(default, deserialize_with = "or_default")]
    pub http_statuses: Vec<u16>,
    /// Connections that failed; 0: never.
    #[serde(default, deserialize_with = "or_default")]
    pub tcp_failures: u8,
    /// Waits that were too long; 0: never.
    #[serde(default, deserialize_with = "or_default")]
    pub timeouts: u8,
    /// Failed statuses; 0: never.
    #[serde(default, deserialize_with = "or_default")]
    pub http_failures: u8,
}

impl Healthchecks {
    /// Whether targets are probed.
    pub fn is_active(&self) -> bool {
        self.active.healthy.interval > 0.0 || self.active.unhealthy.interval > 0.0
    }

    /// Whether traffic can make a target unhealthy.
    pub fn is_passive(&self) -> bool {
        let limits = &self.passive.unhealthy;
        limits.tcp_failures > 0 || limits.timeouts > 0 || limits.http_failures > 0
    }
}

pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Kind;
    use crate::entities::Upstream;
    use crate::schema::parse_entity;
    use crate::schema::tests::TwoPlugins;

    fn upstream(fields: Value) -> Upstream {
        let mut body = json!({"name": "pool", "id": uuid::Uuid::from_u128(1)});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let filled = parse_entity(Kind::Upstream, body, &TwoPlugins::new()).unwrap();
        serde_json::from_value(filled).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let upstream = upstream(json!({}));
        assert_eq!(upstream.algorithm, Algorithm::RoundRobin);
        assert_eq!(upstream.slots, 10_000);
        assert_eq!(upstream.hash_on, HashOn::None);
        assert_eq!(upstream.hash_fallback, HashOn::None);
        assert_eq!(upstream.hash_on_cookie_path, "/");
        assert!(!upstream.use_srv_name);
        let checks = upstream.healthchecks;
        assert!(!checks.is_active() && !checks.is_passive());
        let fine = [
            200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306,
            307, 308,
        ];
        let expected = Healthchecks {
            threshold: 0.0,
            active: Active {
                kind: CheckType::Http,
                timeout: 1.0,
                concurrency: 10,
                http_path: "/".to_owned(),
                https_sni: None,
                https_verify_certificate: true,
                headers: BTreeMap::new(),
                healthy: ActiveHealthy {
                    interval: 0.0,
                    limits: Healthy {
                        http_statuses: vec![200, 302],
                        successes: 0,
                    },
                },
                unhealthy: ActiveUnhealthy {
                    interval: 0.0,
                    limits: Unhealthy {
                        http_statuses: vec![429, 404, 500, 501, 502, 503, 504, 505],
                        tcp_failures: 0,
                        timeouts: 0,
                        http_failures: 0,
                    },
                },
            },
            passive: Passive {
                healthy: Healthy {
                    http_statuses: fine.to_vec(),
                    successes: 0,
                },
                unhealthy: Unhealthy {
                    http_statuses: vec![429, 500, 503],
                    tcp_failures: 0,
                    timeouts: 0,
                    http_failures: 0,
                },
            },
        };
        assert_eq!(checks, expected);
    }

    #[test]
    fn every_algorithm_and_input_is_decoded() {
        for (name, algorithm) in [
            ("round-robin", Algorithm::RoundRobin),
            ("least-connections", Algorithm::LeastConnections),
            ("latency", Algorithm::Latency),
            ("consistent-hashing", Algorithm::ConsistentHashing),
        ] {
            assert_eq!(upstream(json!({"algorithm": name})).algorithm, algorithm);
        }
        for (name, extra, input) in [
            ("consumer", "", HashOn::Consumer),
            ("ip", "", HashOn::Ip),
            ("path", "", HashOn::Path),
            ("header", "hash_on_header", HashOn::Header),
            ("cookie", "hash_on_cookie", HashOn::Cookie),
            ("query_arg", "hash_on_query_arg", HashOn::QueryArg),
            ("uri_capture", "hash_on_uri_capture", HashOn::UriCapture),
        ] {
            let mut fields = json!({"hash_on": name});
            if !extra.is_empty() {
                fields[extra] = json!("x");
            }
            let upstream = upstream(fields);
            assert_eq!(upstream.hash_on, input);
            assert_eq!(upstream.algorithm, Algorithm::ConsistentHashing);
        }
    }
}
