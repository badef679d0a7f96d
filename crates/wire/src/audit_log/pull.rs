//! A record in the names of the pull API, `GET /v3/audit-logs`.

use serde_json::{Map, Value, json};

use super::Kind;

/// The record's JSON object in the names of the pull API.
///
/// Members that records of this kind do not have are left out; `seq` is this product's own.
pub fn shown(kind: Kind, record: &Map<String, Value>, signature: &str) -> Value {
    let mut out = Map::new();
    out.insert("type".to_owned(), json!(kind.name()));
    out.insert("signature".to_owned(), json!(signature));
    let common: &[(&str, &str)] = &[
        ("event_ts", "ts"),
        ("org_id", "org_id"),
        ("principal_id", "principal_id"),
        ("principal_name", "principal_name"),
        ("src", "client_ip"),
        ("user_agent", "user_agent"),
        ("trace_id", "trace_id"),
        ("actor_id", "actor_id"),
        ("seq", "seq"),
    ];
    let own: &[(&str, &str)] = match kind {
        Kind::Authentication => &[
            ("request", "uri"),
            ("success", "successful"),
            ("reason", "reason"),
            ("repeated", "repeated"),
        ],
        Kind::Authorization => &[
            ("event_class_id", "service"),
            ("action", "action"),
            ("granted", "granted"),
        ],
        Kind::GatewayAccess => &[
            ("request", "uri"),
            ("act", "method"),
            ("query", "query"),
            ("status", "status_code"),
        ],
        Kind::Received => &[
            ("transport", "transport"),
            ("device_host", "device_host"),
            ("device_app", "device_app"),
            ("device_ts", "device_ts"),
            ("device_data", "device_data"),
            ("syslog_severity", "syslog_severity"),
            ("msg", "message"),
        ],
        Kind::AuditLog => &[("name", "name"), ("msg", "message")],
    };
    for (from, to) in common.iter().chain(own) {
        if let Some(value) = record.get(*from) {
            out.insert((*to).to_owned(), value.clone());
        }
    }
    match kind {
        Kind::Authentication => {
            for (from, to, prefix) in [
                (
                    "event_class_id",
                    "authentication_type",
                    "AUTHENTICATION_TYPE_",
                ),
                ("name", "outcome", "AUTHENTICATION_OUTCOME_"),
            ] {
                let word = record.get(from).and_then(Value::as_str).unwrap_or_default();
                let word = word.strip_prefix(prefix).unwrap_or(word).to_lowercase();
                out.insert(to.to_owned(), json!(word));
            }
        }
        Kind::Authorization => {
            let name = record
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let resource = name.strip_prefix("Authz.").unwrap_or(name);
            out.insert("resource".to_owned(), json!(resource));
        }
        Kind::GatewayAccess | Kind::Received | Kind::AuditLog => {}
    }
    Value::Object(out)
}
