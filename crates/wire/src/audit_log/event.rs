//! What a record says: who, from where, what, with which result.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{PRODUCT, VENDOR, VERSION};

/// Characters that a text from outside may have in a record; longer ones are cut.
const TEXT_CHARS_MAX: usize = 2048;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// Address of who caused it.
    pub src: Option<IpAddr>,
    /// Organisation it belongs to.
    pub org_id: Option<String>,
    /// Id of who caused it: a user, or a data plane's control plane.
    pub principal_id: Option<String>,
    /// Name of who caused it.
    pub principal_name: Option<String>,
    /// Id of the credential by which they acted.
    pub actor_id: Option<String>,
    /// 32 hexadecimal digits that the answer carried too.
    pub trace_id: Option<String>,
    /// What the client called itself.
    pub user_agent: Option<String>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Somebody proved who they are, or failed to.
    Authentication {
        /// By what means.
        by: AuthenticationType,
        /// With which result.
        outcome: AuthenticationOutcome,
        /// Path or host name that was asked for.
        request: String,
        /// Why it failed, for the operator.
        reason: Option<String>,
        /// Like ones since the last record that were not recorded one by one.
        repeated: u64,
    },
    /// Somebody known may or may not do something.
    Authorization {
        /// What decided.
        service: String,
        /// What it is about, such as `control-planes/{id}`.
        resource: String,
        /// What was asked for, such as `delete`.
        action: String,
        /// The decision.
        granted: bool,
    },
    /// A request for a change.
    Access {
        /// Path.
        request: String,
        /// Query, with values that may be secret removed.
        query: String,
        /// Method.
        act: String,
        /// Status of the answer; `None` if the client left before there was one, so that the
        /// change may or may not have been made.
        status: Option<u16>,
    },
    /// A syslog message from outside.
    Received(Received),
    /// The log about itself.
    Log {
        /// Such as `Log.Started` or `Log.Gap`.
        name: &'static str,
        /// 0 (nothing special) to 10.
        severity: u8,
        /// Facts, as a text for people.
        detail: String,
    },
}

/// A syslog message from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// `tcp`, `tls` or `udp`.
    pub transport: &'static str,
    /// Names in the sender's certificate, if it showed one that was checked.
    pub certificate: Option<String>,
    /// The message.
    pub message: super::Message,
}

/// The part of the log that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "as in What")]
pub enum Kind {
    Authentication,
    Authorization,
    GatewayAccess,
    Received,
    AuditLog,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [
        Kind::Authentication,
        Kind::Authorization,
        Kind::GatewayAccess,
        Kind::Received,
        Kind::AuditLog,
    ];

    /// The word of the pull API's `filter[type]`; the last two are ours.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Authentication => "authentication",
            Kind::Authorization => "authorization",
            Kind::GatewayAccess => "gateway_access",
            Kind::Received => "received",
            Kind::AuditLog => "audit_log",
        }
    }

    /// The kind with this [`Kind::name`].
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The result of an authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthenticationOutcome {
    /// Known.
    Success,
    /// A credential that nobody has.
    NotFound,
    /// No credential, or one that cannot be read.
    Invalid,
    /// A credential past its end.
    Expired,
}

impl AuthenticationOutcome {
    fn name(self) -> &'static str {
        match self {
            AuthenticationOutcome::Success => "AUTHENTICATION_OUTCOME_SUCCESS",
            AuthenticationOutcome::NotFound => "AUTHENTICATION_OUTCOME_NOT_FOUND",
            AuthenticationOutcome::Invalid => "AUTHENTICATION_OUTCOME_INVALID",
            AuthenticationOutcome::Expired => "AUTHENTICATION_OUTCOME_TOKEN_EXPIRED",
        }
    }
}

/// By what somebody proves who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthenticationType {
    /// A personal access token.
    Pat,
    /// A system account's access token.
    Spat,
    /// A data plane's client certificate (this product's own word).
    Certificate,
    /// Nothing that can be read.
    Invalid,
}

impl AuthenticationType {
    fn name(self) -> &'static str {
        match self {
            AuthenticationType::Pat => "AUTHENTICATION_TYPE_PAT",
            AuthenticationType::Spat => "AUTHENTICATION_TYPE_SPAT",
            AuthenticationType::Certificate => "AUTHENTICATION_TYPE_CERTIFICATE",
            AuthenticationType::Invalid => "AUTHENTICATION_TYPE_INVALID",
        }
    }
}

impl Event {
    /// The part of the log it belongs to.
    pub fn kind(&self) -> Kind {
        match self.what {
            What::Authentication { .. } => Kind::Authentication,
            What::Authorization { .. } => Kind::Authorization,
            What::Access { .. } => Kind::GatewayAccess,
            What::Received(_) => Kind::Received,
            What::Log { .. } => Kind::AuditLog,
        }
    }

    /// The record's text without signature: one line of JSON, an object, members sorted by name.
    ///
    /// Texts from outside are cut at 2,048 characters, except a received message, whose receiver
    /// has a bound of its own.
    pub fn text(&self, seq: u64, prev: &[u8; 32]) -> String {
        let mut members = Map::new();
        self.head(&mut members);
        self.common(&mut members);
        self.own(&mut members);
        members.insert("seq".to_owned(), json!(seq));
        members.insert("prev".to_owned(), json!(super::chain::hex(prev)));
        Value::Object(members).to_string()
    }

    fn head(&self, members: &mut Map<String, Value>) {
        let (class, name, severity) = self.class();
        members.insert("cef_version".to_owned(), json!(0));
        members.insert("event_ts".to_owned(), json!(stamp(self.at_ms)));
        members.insert("event_vendor".to_owned(), json!(VENDOR));
        members.insert("event_product".to_owned(), json!(PRODUCT));
        members.insert("event_version".to_owned(), json!(VERSION));
        members.insert("event_class_id".to_owned(), json!(cut(&class)));
        members.insert("name".to_owned(), json!(cut(&name)));
        members.insert("severity".to_owned(), json!(severity));
    }

    fn common(&self, members: &mut Map<String, Value>) {
        members.insert("rt".to_owned(), json!(self.at_ms));
        if let Some(src) = self.src {
            members.insert("src".to_owned(), json!(src.to_canonical().to_string()));
        }
        for (name, value) in [
            ("org_id", &self.org_id),
            ("principal_id", &self.principal_id),
            ("principal_name", &self.principal_name),
            ("actor_id", &self.actor_id),
            ("trace_id", &self.trace_id),
            ("user_agent", &self.user_agent),
        ] {
            if let Some(value) = value {
                members.insert(name.to_owned(), json!(cut(value)));
            }
        }
    }

    /// `event_class_id`, `name` and severity.
    fn class(&self) -> (String, String, u8) {
        match &self.what {
            What::Authentication { by, outcome, .. } => {
                let severity = u8::from(*outcome != AuthenticationOutcome::Success);
                (by.name().to_owned(), outcome.name().to_owned(), severity)
            }
            What::Authorization {
                service,
                resource,
                granted,
                ..
            } => {
                let severity = if *granted { 1 } else { 6 };
                (service.clone(), format!("Authz.{resource}"), severity)
            }
            What::Access { status, .. } => {
                let severity = match status {
                    Some(401 | 403) => 6,
                    Some(500..) => 10,
                    _ => 1,
                };
                ("KongGateway".to_owned(), "Ingress".to_owned(), severity)
            }
            What::Received(received) => {
                // syslog counts down from 7 (debug) to 0 (emergency)
                let severity =
                    [10, 9, 8, 6, 4, 2, 1, 0][usize::from(received.message.severity & 7)];
                ("Syslog".to_owned(), "Received".to_owned(), severity)
            }
            What::Log { name, severity, .. } => {
                ("AuditLog".to_owned(), (*name).to_owned(), *severity)
            }
        }
    }

    fn own(&self, members: &mut Map<String, Value>) {
        let mut put = |name: &str, value: Value| {
            members.insert(name.to_owned(), value);
        };
        match &self.what {
            What::Authentication {
                outcome,
                request,
                reason,
                repeated,
                ..
            } => {
                put("request", json!(cut(request)));
                put("success", json!(*outcome == AuthenticationOutcome::Success));
                if let Some(reason) = reason {
                    put("reason", json!(cut(reason)));
                }
                if *repeated > 0 {
                    put("repeated", json!(repeated));
                }
            }
            What::Authorization {
                action, granted, ..
            } => {
                put("action", json!(cut(action)));
                put("granted", json!(granted));
            }
            What::Access {
                request,
                query,
                act,
                status,
            } => {
                put("request", json!(cut(request)));
                put("query", json!(cut(query)));
                put("act", json!(cut(act)));
                put("status", json!(status.unwrap_or(0)));
            }
            What::Received(received) => received.members(&mut put),
            What::Log { detail, .. } => put("msg", json!(cut(detail))),
        }
    }
}

impl Received {
    fn members(&self, put: &mut impl FnMut(&str, Value)) {
        let message = &self.message;
        put("transport", json!(self.transport));
        put("facility", json!(message.facility));
        put("syslog_severity", json!(message.severity));
        for (name, value) in [
            ("certificate", &self.certificate),
            ("device_ts", &message.timestamp),
            ("device_host", &message.hostname),
            ("device_app", &message.app_name),
            ("device_procid", &message.procid),
            ("device_msgid", &message.msgid),
        ] {
            if let Some(value) = value {
                put(name, json!(cut(value)));
            }
        }
        if !message.data.is_empty() {
            put("device_data", json!(super::syslog::data(&message.data)));
        }
        put("msg", json!(message.text));
    }
}

fn cut(text: &str) -> &str {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

/// RFC 3339 in UTC with milliseconds.
pub(super) fn stamp(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
    format!("{time:.3}")
}
