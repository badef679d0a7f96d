//! Keys in request bodies: JSON objects, forms and multipart forms.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Found;
use crate::multipart::Multipart;
use crate::params::Params;

/// A body that may hold a key.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Json(Map<String, Value>),
    Form(Params),
    Multipart(Multipart),
}

impl Body {
    /// Reads a body of this `Content-Type`; `None` if it is of another kind, or not what it says.
    pub(super) fn read(content_type: &str, bytes: &[u8]) -> Option<Body> {
        let lower = content_type.to_ascii_lowercase();
        if lower.contains("application/json") {
            serde_json::from_slice(bytes).ok().map(Body::Json)
        } else if lower.contains("application/x-www-form-urlencoded") {
            let text = std::str::from_utf8(bytes).ok()?;
            Some(Body::Form(Params::parse(text)))
        } else if lower.contains("multipart/form-data") {
            Multipart::parse(content_type, bytes).map(Body::Multipart)
        } else {
            None
        }
    }

    /// The key under this name. A list of them is one too many.
    pub(super) fn find(&self, name: &str) -> Found {
        let key_of = |bytes: &[u8]| match bytes.is_empty() {
            true => Found::Nothing,
            false => Found::Key(bytes.to_vec()),
        };
        let key = |text: &str| key_of(text.as_bytes());
        match self {
            Body::Json(members) => match members.get(name) {
                Some(Value::String(text)) => key(text),
                Some(Value::Array(_) | Value::Object(_)) => Found::Twice,
                _ => Found::Nothing,
            },
            Body::Form(params) => match params.count(name) {
                0 => Found::Nothing,
                1 => key(params.get(name).unwrap_or_default()),
                _ => Found::Twice,
            },
            Body::Multipart(form) => {
                let mut contents = form.contents(name);
                match (contents.next(), contents.next()) {
                    (None, _) => Found::Nothing,
                    (Some(content), None) => key_of(content),
                    (Some(_), Some(_)) => Found::Twice,
                }
            }
        }
    }

    /// The body without what has this name.
    pub(super) fn without(mut self, name: &str) -> Bytes {
        match &mut self {
            Body::Json(members) => {
                members.remove(name);
                serde_json::to_vec(members).unwrap_or_default().into()
            }
            Body::Form(params) => {
                params.remove(name);
                params.encode().into()
            }
            Body::Multipart(form) => {
                form.remove(name);
                form.encode().into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_found_in_json_and_forms() {
        let found = |content_type: &str, body: &str| {
            let body = Body::read(content_type, body.as_bytes())?;
            Some(match body.find("apikey") {
                Found::Key(key) => String::from_utf8(key).unwrap(),
                Found::Nothing => "nothing".to_owned(),
                Found::Twice => "twice".to_owned(),
            })
        };
        let (json, form) = (
            "application/json; charset=utf-8",
            "application/x-www-form-urlencoded",
        );
        for (content_type, body, expected) in [
            (json, r#"{"apikey": "k", "b": 1}"#, Some("k")),
            (json, r#"{"apikey": ["k", "l"]}"#, Some("twice")),
            (json, r#"{"apikey": ""}"#, Some("nothing")),
            (json, r#"{"apikey": 5}"#, Some("nothing")),
            (json, r#"["apikey"]"#, None),
            (json, "{", None),
            (form, "a=b&apikey=k%2Dl", Some("k-l")),
            (form, "apikey=k&apikey=l", Some("twice")),
            // as Kong reads an argument without a value
            (form, "apikey", Some("true")),
            (form, "", Some("nothing")),
            ("text/plain", "apikey=k", None),
        ] {
            assert_eq!(found(content_type, body).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn a_key_is_taken_out() {
        let json = Body::read("application/json", br#"{"apikey": "k", "b": [1]}"#);
        assert_eq!(&json.unwrap().without("apikey")[..], br#"{"b":[1]}"#);
        let form = Body::read("application/x-www-form-urlencoded", b"a=%20b&apikey=k&c");
        assert_eq!(&form.unwrap().without("apikey")[..], b"a=%20b&c");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), json in any::<bool>()) {
            let content_type = match json {
                true => "application/json",
                false => "application/x-www-form-urlencoded",
            };
            if let Some(body) = Body::read(content_type, &bytes) {
                let _ = body.find("apikey");
                let _ = body.without("apikey");
            }
        }
    }
}
