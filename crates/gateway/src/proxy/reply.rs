//! Responses that the gateway makes itself, in the form the client accepts.
//!
//! Source: data-plane reference 4.9. Plugins and routing errors answer JSON when the client names
//! no type; failures of an upstream answer what `error_default_type` says.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use sallyport_plugins::{Fields, Reply, ReplyBody};

use super::serve::{Answer, AnswerBody};
use crate::conf::ErrorType;

/// An answer out of a reply.
///
/// `request` are the client's headers, `default` the type when it accepts anything.
pub(crate) fn render(
    reply: Reply,
    request: &Fields,
    default: ErrorType,
    request_id: &str,
) -> Answer {
    let (content_type, bytes) = match reply.body {
        ReplyBody::Empty => (None, Bytes::new()),
        ReplyBody::Exact {
            content_type,
            bytes,
        } => (Some(content_type), bytes),
        ReplyBody::Message(message) => {
            let kind = negotiate(request.get_str(&ACCEPT), default);
            let text = body(kind, &message, request_id);
            (
                Some(HeaderValue::from_static(content_type(kind))),
                text.into(),
            )
        }
    };
    let mut headers = Fields::new();
    for (name, value) in reply.headers {
        headers.append(&name, &value);
    }
    if let Some(content_type) = content_type {
        headers.set(&CONTENT_TYPE, &content_type);
    }
    Answer {
        status: reply.status,
        headers,
        body: AnswerBody::Full(bytes),
        later: None,
    }
}

fn content_type(kind: ErrorType) -> &'static str {
    match kind {
        ErrorType::Json => "application/json; charset=utf-8",
        ErrorType::Xml => "application/xml; charset=utf-8",
        ErrorType::Html => "text/html; charset=utf-8",
        ErrorType::Plain => "text/plain; charset=utf-8",
    }
}

fn body(kind: ErrorType, message: &str, id: &str) -> String {
    match kind {
        ErrorType::Json => {
            let message = serde_json::Value::from(message);
            format!("{{\n  \"message\":{message},\n  \"request_id\":\"{id}\"\n}}")
        }
        ErrorType::Xml => {
            let message = escape(message);
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<error>\n  <message>{message}</message>\n  \
                 <requestid>{id}</requestid>\n</error>"
            )
        }
        ErrorType::Html => {
            let message = escape(message);
            format!(
                "<!doctype html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    \
                 <title>Error</title>\n  </head>\n  <body>\n    <h1>Error</h1>\n    \
                 <p>{message}.</p>\n    <p>request_id: {id}</p>\n  </body>\n</html>\n"
            )
        }
        ErrorType::Plain => format!("{message}\nrequest_id: {id}\n"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The best type that the client accepts; the one listed first among equals.
fn negotiate(accept: Option<&str>, default: ErrorType) -> ErrorType {
    let Some(accept) = accept else {
        return default;
    };
    let mut best: Option<(f32, ErrorType)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = match parts
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "application/json" | "application/*" => ErrorType::Json,
            "text/html" => ErrorType::Html,
            "text/plain" | "text/*" => ErrorType::Plain,
            "application/xml" => ErrorType::Xml,
            "*/*" => default,
            _ => continue,
        };
        let weight = parts
            .find_map(|part| part.strip_prefix("q=")?.parse().ok())
            .filter(|weight: &f32| (0.0..=1.0).contains(weight))
            .unwrap_or(1.0);
        if weight > 0.0 && best.is_none_or(|(most, _)| weight > most) {
            best = Some((weight, kind));
        }
    }
    best.map_or(default, |(_, kind)| kind)
}

/// What the gateway says when an upstream gave no response.
pub(crate) fn upstream_failure(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_GATEWAY => "An invalid response was received from the upstream server",
        StatusCode::SERVICE_UNAVAILABLE => "The upstream server is currently unavailable",
        StatusCode::GATEWAY_TIMEOUT => "The upstream server is timing out",
        StatusCode::PAYLOAD_TOO_LARGE => "Payload too large",
        StatusCode::REQUEST_TIMEOUT => "Request timeout",
        StatusCode::BAD_REQUEST => "Bad request",
        StatusCode::METHOD_NOT_ALLOWED => "Method not allowed",
        StatusCode::URI_TOO_LONG => "URI too long",
        StatusCode::EXPECTATION_FAILED => "Expectation failed",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "Request header or cookie too large",
        _ => "An unexpected error occurred",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: Option<&str>, default: ErrorType, expected: ErrorType) {
        assert_eq!(negotiate(accept, default), expected);
    }

    #[test]
    fn the_client_chooses_the_form() {
        check(None, ErrorType::Json, ErrorType::Json);
        check(None, ErrorType::Plain, ErrorType::Plain);
        check(Some("*/*"), ErrorType::Json, ErrorType::Json);
        check(
            Some("text/html,application/json;q=0.9"),
            ErrorType::Json,
            ErrorType::Html,
        );
        check(
            Some("text/html;q=0.1, application/xml"),
            ErrorType::Json,
            ErrorType::Xml,
        );
        check(Some("text/*"), ErrorType::Json, ErrorType::Plain);
        check(Some("image/png"), ErrorType::Json, ErrorType::Json);
        check(Some("text/html;q=0"), ErrorType::Json, ErrorType::Json);
        check(Some(";;q=,,,"), ErrorType::Plain, ErrorType::Plain);
    }

    #[test]
    fn bodies_carry_message_and_id() {
        let json = body(ErrorType::Json, "No API key found in request", "abc");
        assert_eq!(
            json,
            "{\n  \"message\":\"No API key found in request\",\n  \"request_id\":\"abc\"\n}"
        );
        serde_json::from_str::<serde_json::Value>(&body(ErrorType::Json, "a\"b\n", "x")).unwrap();
        assert_eq!(body(ErrorType::Plain, "Bad", "x"), "Bad\nrequest_id: x\n");
        assert!(body(ErrorType::Xml, "<a>", "x").contains("&lt;a&gt;"));
    }
}
