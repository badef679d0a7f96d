//! `request-size-limiting`: refuses requests with large bodies.

use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{StatusCode, Version};
use sallyport_model::schema::{Field, Record};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exchange::{Env, Exchange, Flow, Handler, Reply, RequestBody};
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
A kilobyte has 1,024 bytes, a megabyte 1,024 kilobytes. A body whose length the client does not announce is read
before the request goes upstream, up to the limit.

| case | answer |
|---|---|
| the body is larger | 413 `Request size limit exceeded`; 417 if the client waits with `Expect: 100-continue` |
| `require_content_length`, and neither `Content-Length` nor `Transfer-Encoding` | 411 `A valid Content-Length header is required` |

`client_max_body_size` of the gateway is checked before.
";

/// The plugin, as the registry lists it.
pub(crate) struct RequestSizeLimiting;

impl Plugin for RequestSizeLimiting {
    fn name(&self) -> &'static str {
        "request-size-limiting"
    }

    fn priority(&self) -> i32 {
        951
    }

    fn summary(&self) -> &'static str {
        "refuses requests with large bodies"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn schema(&self) -> Record {
        Record::new([
            Field::integer("allowed_payload_size")
                .default(json!(128))
                .check(not_negative)
                .about("The largest body, in `size_unit`."),
            Field::string("size_unit")
                .required()
                .default(json!("megabytes"))
                .one_of(&["megabytes", "kilobytes", "bytes"])
                .about("What `allowed_payload_size` counts."),
            Field::boolean("require_content_length")
                .required()
                .default(json!(false))
                .about("Whether requests without a length are refused."),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        let unit = match config.size_unit {
            Unit::Bytes => 1,
            Unit::Kilobytes => 1 << 10,
            Unit::Megabytes => 1 << 20,
        };
        Ok(Box::new(Active {
            bytes_max: config
                .allowed_payload_size
                .unwrap_or(128)
                .saturating_mul(unit),
            require_content_length: config.require_content_length,
        }))
    }
}

fn not_negative(size: &Value) -> Result<(), String> {
    match size.as_i64() {
        Some(size) if size < 0 => Err("value must not be negative".to_owned()),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Config {
    allowed_payload_size: Option<u64>,
    size_unit: Unit,
    require_content_length: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Megabytes,
    Kilobytes,
    Bytes,
}

struct Active {
    bytes_max: u64,
    require_content_length: bool,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, _: &Env<'_>) -> Flow {
        let length = match &exchange.body {
            RequestBody::Coming(length) => *length,
            RequestBody::Here(bytes) => Some(bytes.len() as u64),
            RequestBody::TooLarge => None,
        };
        let headers = &exchange.request.headers;
        let without_length = match exchange.request.version {
            // a frame says where the body ends
            Version::HTTP_2 => length.is_none(),
            _ => !headers.contains(&http::header::CONTENT_LENGTH),
        };
        if self.require_content_length && without_length && !headers.contains(&TRANSFER_ENCODING) {
            let message = "A valid Content-Length header is required";
            return Flow::Respond(Reply::error(StatusCode::LENGTH_REQUIRED, message));
        }
        match length {
            Some(length) => self.judge(exchange, length),
            None => {
                let active = Active { ..*self };
                Flow::ReadBody(
                    self.bytes_max,
                    Box::new(move |exchange, _| {
                        let length = match &exchange.body {
                            RequestBody::Here(bytes) => bytes.len() as u64,
                            RequestBody::Coming(_) | RequestBody::TooLarge => u64::MAX,
                        };
                        active.judge(exchange, length)
                    }),
                )
            }
        }
    }
}

impl Active {
    fn judge(&self, exchange: &Exchange, length: u64) -> Flow {
        if length <= self.bytes_max {
            return Flow::Continue;
        }
        let expect = exchange.request.headers.get(&EXPECT).unwrap_or_default();
        let status = match expect.trim_ascii().eq_ignore_ascii_case(b"100-continue") {
            true => StatusCode::EXPECTATION_FAILED,
            false => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Flow::Respond(Reply::error(status, "Request size limit exceeded"))
    }
}

#[cfg(test)]
mod tests {
    use http::request::Builder;

    use super::*;
    use crate::testing::exchange;
    use crate::trial::{Trial, problems};

    /// A POST with these headers and a body of so many bytes, whose length is told if the
    /// headers say so.
    #[track_caller]
    fn check(config: Value, headers: &[(&str, &str)], bytes: usize, expected: (u16, &str)) {
        let mut request = Builder::new().method("POST").uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut exchange = exchange(request);
        let told = headers.iter().any(|(name, _)| *name == "content-length");
        exchange.body = RequestBody::Coming(told.then_some(bytes as u64));
        let seen = Trial::new(&RequestSizeLimiting, config).ask(&mut exchange, &vec![b'x'; bytes]);
        assert_eq!((seen.status, &*seen.body), expected);
    }

    #[test]
    fn the_size_decides() {
        let over = (413, "Request size limit exceeded");
        let length = |text| [("content-length", text)];
        let bytes = |size: u32| json!({"allowed_payload_size": size, "size_unit": "bytes"});
        check(bytes(4), &length("4"), 4, (200, ""));
        check(bytes(4), &length("5"), 5, over);
        check(bytes(0), &length("0"), 0, (200, ""));
        check(bytes(4), &[("transfer-encoding", "chunked")], 4, (200, ""));
        check(bytes(4), &[("transfer-encoding", "chunked")], 5, over);
        let kilo = json!({"allowed_payload_size": 1, "size_unit": "kilobytes"});
        check(kilo.clone(), &length("1024"), 1024, (200, ""));
        check(kilo, &length("1025"), 1025, over);
        let mega = json!({"allowed_payload_size": 1});
        check(mega.clone(), &length("1048576"), 1 << 20, (200, ""));
        check(mega, &length("1048577"), (1 << 20) + 1, over);
    }

    #[test]
    fn who_asks_before_sending_is_told_417() {
        let config = json!({"allowed_payload_size": 1, "size_unit": "bytes"});
        let headers = [("content-length", "2"), ("expect", " 100-Continue ")];
        check(config, &headers, 2, (417, "Request size limit exceeded"));
    }

    #[test]
    fn a_length_can_be_required() {
        let config = json!({"require_content_length": true});
        let missing = (411, "A valid Content-Length header is required");
        check(config.clone(), &[], 0, missing);
        check(
            config.clone(),
            &[("transfer-encoding", "chunked")],
            3,
            (200, ""),
        );
        check(config, &[("content-length", "3")], 3, (200, ""));
    }

    #[test]
    fn bad_configurations_are_named() {
        for (config, part) in [
            (json!({"size_unit": "gigabytes"}), "expected one of"),
            (json!({"allowed_payload_size": -1}), "allowed_payload_size"),
            (json!({"allowed_payload_size": 1.5}), "expected an integer"),
        ] {
            let found = problems(&RequestSizeLimiting, config);
            assert!(found.contains(part), "{found:?}");
        }
    }
}
