//! `basic-auth`: recognises a consumer by user name and password.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderName, HeaderValue};
use sallyport_model::schema::{Field, Record};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::{Gate, admit, after_scheme, anonymous, challenge, unauthorized};
use crate::exchange::{Env, Exchange, Flow, Handler};
use crate::identities::Password;
use crate::{CompileError, Plugin};

const ABOUT: &str = "\
`Proxy-Authorization` is looked at first, then `Authorization`. Credentials are `basicauth_credentials` of
consumers. Passwords are kept as Kong keeps them, as the SHA-1 of password and consumer id: a declarative file
with `_transform: false` brings these hashes, any other brings passwords; the control plane hashes what it is
given unless the client says `?skip_hash=true`, and shows the hash.

Every failure is a 401 `Unauthorized` with `WWW-Authenticate: Basic realm=\"<realm>\"`.
`X-Credential-Identifier` is the user name.
";

/// The plugin, as the registry lists it.
pub(crate) struct BasicAuth;

impl Plugin for BasicAuth {
    fn name(&self) -> &'static str {
        "basic-auth"
    }

    fn priority(&self) -> i32 {
        1100
    }

    fn summary(&self) -> &'static str {
        "recognises a consumer by user name and password"
    }

    fn about(&self) -> &'static str {
        ABOUT
    }

    fn consumer_scope(&self) -> bool {
        false
    }

    fn schema(&self) -> Record {
        Record::new([
            anonymous(),
            Field::boolean("hide_credentials")
                .required()
                .default(json!(false))
                .about("Whether the header is removed before the request goes upstream."),
            Field::string("realm")
                .required()
                .default(json!("service"))
                .about("The `realm` of the challenge on a 401."),
        ])
    }

    fn compile(&self, config: &Value) -> Result<Box<dyn Handler>, CompileError> {
        let config = Config::deserialize(config)?;
        Ok(Box::new(Active {
            challenge: challenge("Basic", Some(&config.realm))?,
            hide_credentials: config.hide_credentials,
            gate: Gate::new(config.anonymous),
        }))
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    anonymous: Option<String>,
    hide_credentials: bool,
    realm: String,
}

struct Active {
    challenge: HeaderValue,
    hide_credentials: bool,
    gate: Gate,
}

impl Handler for Active {
    fn access(&self, exchange: &mut Exchange, env: &Env<'_>) -> Flow {
        if self.gate.is_open(exchange) {
            return Flow::Continue;
        }
        for header in [PROXY_AUTHORIZATION, AUTHORIZATION] {
            let Some(given) = self.take(exchange, &header) else {
                continue;
            };
            // a name that nobody has is looked for in the other header too
            let Some(stored) = env.identities.password(&given.name) else {
                continue;
            };
            if !Password::is(stored, &given.password) {
                break;
            }
            return admit(exchange, &stored.owner);
        }
        let reply = unauthorized("Unauthorized", &self.challenge);
        self.gate.refuse(exchange, env, reply)
    }
}

impl Active {
    fn take(&self, exchange: &mut Exchange, header: &HeaderName) -> Option<Given> {
        let headers = &mut exchange.request.headers;
        let given = headers.get(header).and_then(parse);
        if self.hide_credentials {
            headers.remove(header);
        }
        given
    }
}

/// A user name with the password that came with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) name: Vec<u8>,
    pub(crate) password: Vec<u8>,
}

/// Reads the value of an `Authorization` header (RFC 7617).
pub(crate) fn parse(value: &[u8]) -> Option<Given> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let encoded = after_scheme(value, "basic")?;
    let mut name = LENIENT.decode(encoded.trim_ascii_end()).ok()?;
    let colon = name.iter().position(|byte| *byte == b':')?;
    let password = name.split_off(colon + 1);
    name.pop();
    (!name.is_empty()).then_some(Given { name, password })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Bench, Seen, exchange, header};

    fn basic(text: &str) -> String {
        format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(text))
    }

    #[track_caller]
    fn check(config: Value, headers: &[(&str, &str)], expected: Seen) {
        let bench = Bench::new(&BasicAuth, config);
        assert_eq!(bench.seen(&mut request(headers)), expected);
    }

    fn request(headers: &[(&str, &str)]) -> Exchange {
        let builder = http::Request::get("/");
        let builder = headers.iter().fold(builder, |builder, (name, value)| {
            builder.header(*name, *value)
        });
        exchange(builder)
    }

    fn refused() -> Seen {
        Seen::refused(401, "Unauthorized").with("www-authenticate", "Basic realm=\"service\"")
    }

    #[test]
    fn a_user_is_let_in_with_the_right_password() {
        let alice = basic("alice:open sesame");
        check(json!({}), &[("authorization", &alice)], Seen::Continued);
        check(
            json!({}),
            &[("proxy-authorization", &alice)],
            Seen::Continued,
        );
        let lower = alice.replace("Basic ", " basic");
        check(json!({}), &[("authorization", &lower)], Seen::Continued);
        let unpadded = alice.trim_end_matches('=');
        check(json!({}), &[("authorization", unpadded)], Seen::Continued);
        let colons = basic("bob:a:b:c");
        check(json!({}), &[("authorization", &colons)], Seen::Continued);
    }

    #[test]
    fn everybody_else_gets_the_same_refusal() {
        check(json!({}), &[], refused());
        for bad in [
            basic("alice:wrong"),
            basic("alice:"),
            basic("alice"),
            basic(":open sesame"),
            basic("nobody:open sesame"),
            basic("mallory:anything"),
            "Basic".to_owned(),
            "Basic ???".to_owned(),
            "Bearer x".to_owned(),
            String::new(),
        ] {
            check(json!({}), &[("authorization", &bad)], refused());
        }
        let realm =
            Seen::refused(401, "Unauthorized").with("www-authenticate", "Basic realm=\"r\"");
        check(json!({"realm": "r"}), &[], realm);
    }

    #[test]
    fn the_proxy_header_decides_if_it_names_somebody() {
        let (good, bad) = (basic("alice:open sesame"), basic("alice:wrong"));
        let nobody = basic("nobody:x");
        let both = |proxy: &str, own: &str, expected| {
            let headers = [("proxy-authorization", proxy), ("authorization", own)];
            check(json!({}), &headers, expected);
        };
        both(&nobody, &good, Seen::Continued);
        both("Negotiate x", &good, Seen::Continued);
        both(&bad, &good, refused());
    }

    #[test]
    fn the_upstream_learns_the_user_and_not_the_password_when_it_is_hidden() {
        let alice = basic("alice:open sesame");
        let bench = Bench::new(&BasicAuth, json!({"hide_credentials": true}));
        let mut exchange = request(&[("authorization", &alice), ("x-consumer-id", "forged")]);
        assert_eq!(bench.seen(&mut exchange), Seen::Continued);
        assert_eq!(header(&exchange, "authorization"), None);
        assert_eq!(header(&exchange, "x-credential-identifier"), Some("alice"));
        assert_eq!(header(&exchange, "x-consumer-username"), Some("alice"));
        assert_ne!(header(&exchange, "x-consumer-id"), Some("forged"));
    }

    #[test]
    fn one_proof_is_enough_with_anonymous() {
        let bench = Bench::new(&BasicAuth, json!({"anonymous": "guest"}));
        let mut stranger = request(&[]);
        assert_eq!(bench.seen(&mut stranger), Seen::Continued);
        assert_eq!(header(&stranger, "x-anonymous-consumer"), Some("true"));
        let mut known = request(&[("authorization", &basic("bob:a:b:c"))]);
        bench.known_as(&mut known, "alice");
        assert_eq!(bench.seen(&mut known), Seen::Continued);
        assert_eq!(
            header(&known, "x-consumer-username"),
            Some("alice"),
            "not bob"
        );
        // without it, every plugin has to be satisfied, and the last one names the caller
        let bench = Bench::new(&BasicAuth, json!({}));
        let mut both = request(&[("authorization", &basic("bob:a:b:c"))]);
        bench.known_as(&mut both, "alice");
        assert_eq!(bench.seen(&mut both), Seen::Continued);
        assert_eq!(header(&both, "x-consumer-username"), Some("bob"));
        let mut half = request(&[]);
        bench.known_as(&mut half, "alice");
        assert_eq!(bench.seen(&mut half), refused());
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read(name in "[^:]{1,20}", password in ".{0,20}") {
            let given = parse(basic(&format!("{name}:{password}")).as_bytes());
            let (name, password) = (name.into_bytes(), password.into_bytes());
            prop_assert_eq!(given, Some(Given { name, password }));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
            let _ = parse(&[b"Basic ", &bytes[..]].concat());
        }
    }
}
