//! Parsers of what clients send to authentication plugins, for the targets in `fuzz/`.

use crate::hmac_auth::Parameters;
use crate::jwt::Token;
use crate::session::Seal;

/// Reads a token; whether it is one in form, and what of it was signed.
pub fn jwt(text: &str) -> Option<String> {
    let token = Token::parse(text).ok()?;
    let message = token.signed().message;
    Some(String::from_utf8_lossy(message).into_owned())
}

/// Reads the value of an `Authorization` header of `hmac-auth`: user, algorithm and headers.
pub fn hmac(value: &[u8]) -> Option<[String; 3]> {
    let found = Parameters::parse(value)?;
    let _ = found.signature();
    Some([found.username, found.algorithm, found.headers].map(str::to_owned))
}

/// Reads the value of an `Authorization` header of `basic-auth`: user and password.
pub fn basic(value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let given = crate::basic_auth::parse(value)?;
    Some((given.name, given.password))
}

/// Whether a session cookie opens under a secret that its maker did not know.
pub fn session(value: &[u8]) -> bool {
    Seal::new(b"secret of the target", "default", "session")
        .open(value)
        .is_some()
}

/// Lines of trace headers, as `name: value` each; what goes upstream for them in the formats W3C,
/// B3, Jaeger, OT and Datadog, lines with their names sorted.
pub fn trace_headers(lines: &[u8]) -> Vec<String> {
    crate::trace::passed_on(lines)
}
