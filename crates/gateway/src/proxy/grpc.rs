//! What is special about requests that are gRPC calls: which ones a gRPC route takes, and the form
//! of answers that the gateway makes itself. Source: data-plane reference 4.9.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode, Version};
use sallyport_plugins::{Fields, Reply, ReplyBody, Request};

use super::serve::{Answer, AnswerBody};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a request says that it carries gRPC.
fn says_grpc(request: &Request) -> bool {
    let kind = request.headers.get(&CONTENT_TYPE);
    kind.is_some_and(|kind| {
        let length = GRPC.len();
        kind.len() >= length && kind[..length].eq_ignore_ascii_case(GRPC.as_bytes())
    })
}

/// Whether a request is a call, so that its client reads trailers.
pub(super) fn is_call(request: &Request) -> bool {
    request.version == Version::HTTP_2 && says_grpc(request)
}

/// The answer to what a gRPC route does not take; `tls_only` routes are those without `grpc`
/// among their protocols.
pub(super) fn mismatch(request: &Request, tls: bool, tls_only: bool) -> Option<Reply> {
    if !says_grpc(request) {
        let message = "Non-gRPC request matched gRPC route";
        return Some(Reply::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    if request.version != Version::HTTP_2 {
        let message = "Please use HTTP2 protocol";
        let reply = Reply::error(StatusCode::UPGRADE_REQUIRED, message);
        return Some(
            reply
                .with(CONNECTION, HeaderValue::from_static("Upgrade"))
                .with(UPGRADE, HeaderValue::from_static("HTTP/2")),
        );
    }
    (tls_only && !tls).then(|| {
        let reply = Reply {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: ReplyBody::Message("gRPC request matched gRPCs route".into()),
        };
        reply.with(GRPC_STATUS, HeaderValue::from_static("1"))
    })
}

/// A reply as a call's client reads it: the HTTP status stays, and says the same in gRPC's words.
pub(super) fn render(reply: Reply) -> Answer {
    let mut headers = Fields::new();
    for (name, value) in &reply.headers {
        headers.append(name, value);
    }
    headers.set(&CONTENT_TYPE, &GRPC);
    if !headers.contains(&GRPC_STATUS) {
        headers.set_number(&GRPC_STATUS, status(reply.status).into());
    }
    if !headers.contains(&GRPC_MESSAGE)
        && let Some(message) = message(&reply.body)
        && let Ok(value) = HeaderValue::try_from(escape(&message))
    {
        headers.set(&GRPC_MESSAGE, &value);
    }
    headers.set_number(&CONTENT_LENGTH, 0);
    Answer {
        status: reply.status,
        headers,
        body: AnswerBody::Full(Bytes::new()),
        later: None,
    }
}

/// The gRPC status that says what an HTTP status says.
fn status(status: StatusCode) -> u16 {
    match status.as_u16() {
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 6,
        429 => 8,
        499 => 1,
        501 => 12,
        503 => 14,
        504 => 4,
        200..=299 => 0,
        400..=499 => 3,
        500..=599 => 13,
        _ => 2,
    }
}

/// What a reply tells people.
fn message(body: &ReplyBody) -> Option<String> {
    match body {
        ReplyBody::Empty => None,
        ReplyBody::Message(message) => Some(message.to_string()),
        ReplyBody::Exact { bytes, .. } => {
            let json: serde_json::Value = serde_json::from_slice(bytes).ok()?;
            json["message"].as_str().map(str::to_owned)
        }
    }
}

/// A message with everything but printable ASCII as `%XX`. Source: gRPC over HTTP/2,
/// `Percent-Encoded`.
fn escape(message: &str) -> String {
    let mut escaped = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;

    fn request(version: Version, kind: Option<&'static str>) -> Request {
        let mut headers = Fields::new();
        if let Some(kind) = kind {
            headers.append(&CONTENT_TYPE, &HeaderValue::from_static(kind));
        }
        Request {
            method: Method::POST,
            uri: Uri::from_static("/a.B/C"),
            version,
            headers,
        }
    }

    #[test]
    fn a_grpc_route_takes_calls_alone() {
        let (v1, v2) = (Version::HTTP_11, Version::HTTP_2);
        let check = |version, kind, tls, tls_only, expected: Option<u16>| {
            let reply = mismatch(&request(version, kind), tls, tls_only);
            assert_eq!(reply.map(|reply| reply.status.as_u16()), expected);
        };
        check(v2, Some("application/grpc"), false, false, None);
        check(v2, Some("application/grpc+proto"), true, true, None);
        check(v2, Some("application/json"), false, false, Some(415));
        check(v2, None, false, false, Some(415));
        check(v1, Some("application/grpc"), false, false, Some(426));
        check(v1, None, false, false, Some(415));
        check(v2, Some("application/grpc"), false, true, Some(200));
    }

    #[test]
    fn replies_say_it_in_grpcs_words() {
        let check = |reply: Reply, expected: &str| {
            let answer = render(reply);
            let shown: Vec<String> = answer
                .headers
                .iter()
                .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)))
                .collect();
            assert_eq!(
                format!("{} {}", answer.status.as_u16(), shown.join(" ")),
                expected
            );
        };
        let error = |status, message: &'static str| {
            Reply::error(StatusCode::from_u16(status).unwrap(), message)
        };
        check(
            error(401, "No API key"),
            "401 content-type=application/grpc grpc-status=16 grpc-message=No API key content-length=0",
        );
        check(
            error(502, "50 % ü"),
            "502 content-type=application/grpc grpc-status=13 grpc-message=50 %25 %C3%BC \
             content-length=0",
        );
        let grpcs = mismatch(
            &request(Version::HTTP_2, Some("application/grpc")),
            false,
            true,
        );
        check(
            grpcs.unwrap(),
            "200 grpc-status=1 content-type=application/grpc \
             grpc-message=gRPC request matched gRPCs route content-length=0",
        );
    }
}
