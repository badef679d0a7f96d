//! The compact form of a signed token (RFC 7515 section 7.1).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sallyport_model::entities::JwtAlgorithm;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;
use serde_json::{Map, Value};

use crate::identities::Signed;

/// A token taken apart; nothing in it is proved yet.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    pub(crate) header: Map<String, Value>,
    pub(crate) claims: Map<String, Value>,
    algorithm: JwtAlgorithm,
    /// What was signed.
    message: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// What is wrong with it, in Kong's words.
    pub(crate) fn parse(text: &'a str) -> Result<Token<'a>, &'static str> {
        let mut parts = text.splitn(3, '.');
        let (Some(header), Some(claims), Some(signature)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err("invalid JSON");
        };
        let message = &text[..header.len() + 1 + claims.len()];
        let json = |part: &str| {
            let bytes = decode(part)?;
            serde_json::from_slice::<Value>(&bytes).ok()
        };
        let (Some(header), Some(claims)) = (json(header), json(claims)) else {
            return Err("invalid JSON");
        };
        // `none` is no algorithm of the list
        let algorithm = header["alg"]
            .as_str()
            .and_then(algorithm)
            .ok_or("invalid alg")?;
        let (Value::Object(header), Value::Object(claims)) = (header, claims) else {
            return Err("invalid claims");
        };
        let signature = decode(signature).ok_or("invalid signature")?;
        Ok(Token {
            header,
            claims,
            algorithm,
            message,
            signature,
        })
    }

    /// What is to be verified.
    pub(crate) fn signed(&self) -> Signed<'_> {
        Signed {
            algorithm: self.algorithm,
            message: self.message.as_bytes(),
            signature: &self.signature,
        }
    }
}

fn algorithm(name: &str) -> Option<JwtAlgorithm> {
    let name: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
    JwtAlgorithm::deserialize(name).ok()
}

fn decode(part: &str) -> Option<Vec<u8>> {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    ENGINE.decode(part).ok()
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn encode(text: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(text)
    }

    #[track_caller]
    fn check(text: &str, expected: Result<(), &str>) {
        assert_eq!(Token::parse(text).map(drop), expected, "{text}");
    }

    #[test]
    fn tokens_are_read_or_refused_in_kongs_words() {
        let header = encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = encode(r#"{"iss":"a"}"#);
        check(&format!("{header}.{claims}.c2ln"), Ok(()));
        check(&format!("{header}.{claims}."), Ok(()));
        for bad in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{header}.{claims}"),
            "..".to_owned(),
        ] {
            check(&bad, Err("invalid JSON"));
        }
        check(
            &format!("{header}.{}.c2ln", encode("{")),
            Err("invalid JSON"),
        );
        check(&format!("{header}.{claims}.???"), Err("invalid signature"));
        check(
            &format!("{header}.{claims}.c2ln.c2ln"),
            Err("invalid signature"),
        );
        check(
            &format!("{header}.{}.c2ln", encode("[1]")),
            Err("invalid claims"),
        );
        for alg in [
            r#"{}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":""}"#,
            r#"{"alg":null}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":{"HS256":null}}"#,
            "[]",
            "1",
        ] {
            check(
                &format!("{}.{claims}.c2ln", encode(alg)),
                Err("invalid alg"),
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", parts in proptest::array::uniform3("[A-Za-z0-9_=-]{0,24}")) {
            let _ = Token::parse(&text);
            let _ = Token::parse(&parts.join("."));
        }

        #[test]
        fn what_was_signed_is_what_stands_before_the_last_point(claim in "[a-z]{0,8}") {
            let text = format!(
                "{}.{}.c2ln",
                encode(r#"{"alg":"ES256"}"#),
                encode(&serde_json::json!({"iss": claim}).to_string())
            );
            let token = Token::parse(&text).unwrap();
            prop_assert_eq!(token.signed().message, &text.as_bytes()[..text.len() - 5]);
            prop_assert_eq!(token.claims["iss"].as_str(), Some(&*claim));
        }
    }
}
