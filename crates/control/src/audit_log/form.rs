//! A record's line in each form, signed.

use sallyport_wire::audit_log::{cef, chain};
use serde_json::{Map, Value};

use super::database::Stored;
use super::key::Key;
use super::settings::Form;

/// The line without its line end. `host` is the installation's domain, which CEF names.
pub(super) fn line(form: Form, host: &str, key: &Key, record: &Stored) -> String {
    match form {
        Form::Json => record.line(),
        Form::Cps => format!("{{\"event\":{}}}", record.line()),
        Form::Cef => sign_cef(key, cef::render(host, &members(record))),
    }
}

/// The text of a syslog message: as [`line`], but CEF begins at `CEF:0|`.
pub(super) fn syslog_text(form: Form, key: &Key, record: &Stored) -> String {
    match form {
        Form::Cef => sign_cef(key, cef::body(&members(record))),
        Form::Json | Form::Cps => record.line(),
    }
}

pub(super) fn members(record: &Stored) -> Map<String, Value> {
    serde_json::from_str(&record.text).unwrap_or_default()
}

fn sign_cef(key: &Key, text: String) -> String {
    let signature = chain::signature_text(&key.sign(&text));
    format!("{text} sig={signature}")
}
