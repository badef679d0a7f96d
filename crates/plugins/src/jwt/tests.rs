//! Tokens of every kind, and what is wrong with them.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};

use super::*;
use crate::testing::{Bench, Seen, exchange, header, keys, validate};

const NOW_S: u64 = 1_767_323_045;

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token with this header and these claims, signed by `sign`.
fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn hs(algorithm: &str, secret: &[u8], claims: &Value) -> String {
    let hash = match algorithm {
        "HS384" => ring::hmac::HMAC_SHA384,
        "HS512" => ring::hmac::HMAC_SHA512,
        _ => ring::hmac::HMAC_SHA256,
    };
    let key = ring::hmac::Key::new(hash, secret);
    let header = json!({"alg": algorithm, "typ": "JWT"});
    token(&header, claims, |message| {
        ring::hmac::sign(&key, message).as_ref().to_vec()
    })
}

fn rsa(algorithm: &str, padding: &'static dyn RsaEncoding, claims: &Value) -> String {
    let key = RsaKeyPair::from_pkcs8(&keys::der(keys::RSA)).unwrap();
    token(&json!({"alg": algorithm}), claims, |message| {
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(padding, &SystemRandom::new(), message, &mut signature)
            .unwrap();
        signature
    })
}

/// A token of `alice`, whose secret is `alice-secret`.
fn of_alice(claims: &Value) -> String {
    hs("HS256", b"alice-secret", claims)
}

fn with_token(token: &str) -> Exchange {
    let mut exchange =
        exchange(http::Request::get("/").header("authorization", format!("Bearer {token}")));
    exchange.now_ms = NOW_S * 1000 + 999;
    exchange
}

fn refused(body: &str) -> Seen {
    Seen::refused(401, body).with("www-authenticate", "Bearer error=\"invalid_token\"")
}

fn message(message: &str) -> Seen {
    refused(&json!({ "message": message }).to_string())
}

#[track_caller]
fn check(config: Value, token: &str, expected: Seen) {
    let bench = Bench::new(&Jwt, config);
    assert_eq!(bench.seen(&mut with_token(token)), expected, "{token}");
}

#[test]
fn every_algorithm_verifies_its_own_tokens_and_no_others() {
    let claims = |algorithm: &str| json!({"iss": format!("alice-{algorithm}")});
    let es = |algorithm: &str, key: &EcdsaKeyPair| {
        token(&json!({"alg": algorithm}), &claims(algorithm), |message| {
            let signature = key.sign(&SystemRandom::new(), message).unwrap();
            signature.as_ref().to_vec()
        })
    };
    let ec = |algorithm, key| {
        EcdsaKeyPair::from_pkcs8(algorithm, &keys::der(key), &SystemRandom::new()).unwrap()
    };
    let p256 = ec(&ECDSA_P256_SHA256_FIXED_SIGNING, keys::P256);
    let p384 = ec(&ECDSA_P384_SHA384_FIXED_SIGNING, keys::P384);
    let ed = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&keys::der(keys::ED25519)).unwrap();
    let eddsa = token(&json!({"alg": "EdDSA"}), &claims("EdDSA"), |message| {
        ed.sign(message).as_ref().to_vec()
    });
    let es512 = token(&json!({"alg": "ES512"}), &claims("ES512"), keys::sign_p521);
    let tokens = [
        ("HS256", hs("HS256", b"alice-secret", &claims("HS256"))),
        ("HS384", hs("HS384", b"alice-secret", &claims("HS384"))),
        ("HS512", hs("HS512", b"alice-secret", &claims("HS512"))),
        ("RS256", rsa("RS256", &RSA_PKCS1_SHA256, &claims("RS256"))),
        ("RS384", rsa("RS384", &RSA_PKCS1_SHA384, &claims("RS384"))),
        ("RS512", rsa("RS512", &RSA_PKCS1_SHA512, &claims("RS512"))),
        ("PS256", rsa("PS256", &RSA_PSS_SHA256, &claims("PS256"))),
        ("PS384", rsa("PS384", &RSA_PSS_SHA384, &claims("PS384"))),
        ("PS512", rsa("PS512", &RSA_PSS_SHA512, &claims("PS512"))),
        ("ES256", es("ES256", &p256)),
        ("ES384", es("ES384", &p384)),
        ("ES512", es512),
        ("EdDSA", eddsa),
    ];
    for (algorithm, good) in &tokens {
        check(json!({}), good, Seen::Continued);
        // the signature of another algorithm over other bytes
        for (other, theirs) in &tokens {
            if other != algorithm {
                let (said, _) = good.rsplit_once('.').unwrap();
                let (_, signature) = theirs.rsplit_once('.').unwrap();
                check(
                    json!({}),
                    &format!("{said}.{signature}"),
                    message("Invalid signature"),
                );
            }
        }
    }
}

#[test]
fn the_credential_says_the_algorithm_not_the_token() {
    // the public key as the secret of an HMAC: anybody could sign
    let public = keys::public_pem(keys::RSA);
    let claims = json!({"iss": "alice-RS256"});
    for secret in [public.as_bytes(), public.trim().as_bytes()] {
        check(
            json!({}),
            &hs("HS256", secret, &claims),
            message("Invalid algorithm"),
        );
    }
    check(
        json!({}),
        &rsa("RS512", &RSA_PKCS1_SHA512, &claims),
        message("Invalid algorithm"),
    );
    let none = token(&json!({"alg": "none"}), &claims, |_| Vec::new());
    check(json!({}), &none, message("Bad token; invalid alg"));
    // a secret beside a public key is none
    let both = hs("HS256", b"beside", &json!({"iss": "both"}));
    check(json!({}), &both, message("Invalid algorithm"));
    let unusable = hs("HS256", b"", &json!({"iss": "no-secret"}));
    check(json!({}), &unusable, message("Invalid key/secret"));
    let other_kind = token(
        &json!({"alg": "ES256"}),
        &json!({"iss": "rsa-as-es"}),
        |_| vec![0; 64],
    );
    check(json!({}), &other_kind, message("Invalid key/secret"));
}

#[test]
fn bad_tokens_are_told_apart_in_kongs_words() {
    let alice = json!({"iss": "alice"});
    check(json!({}), &of_alice(&alice), Seen::Continued);
    check(
        json!({}),
        &hs("HS256", b"guessed", &alice),
        message("Invalid signature"),
    );
    let cut = of_alice(&alice);
    check(
        json!({}),
        &cut[..cut.len() - 4],
        message("Invalid signature"),
    );
    check(json!({}), "x", message("Bad token; invalid JSON"));
    check(
        json!({}),
        &of_alice(&json!({})),
        message("No mandatory 'iss' in claims"),
    );
    check(
        json!({}),
        &of_alice(&json!({"iss": ""})),
        message("Invalid 'iss' in claims"),
    );
    check(
        json!({}),
        &of_alice(&json!({"iss": 7})),
        message("Invalid 'iss' in claims"),
    );
    let nobody = of_alice(&json!({"iss": "nobody"}));
    check(
        json!({}),
        &nobody,
        message("No credentials found for given 'iss'"),
    );
    // the header may say it too, and another name may be asked for
    let header = json!({"alg": "HS256", "kid": "alice"});
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"alice-secret");
    let by_kid = token(&header, &json!({}), |message| {
        ring::hmac::sign(&key, message).as_ref().to_vec()
    });
    check(json!({"key_claim_name": "kid"}), &by_kid, Seen::Continued);
    check(json!({}), &by_kid, message("No mandatory 'iss' in claims"));
}

#[test]
fn claims_are_verified_by_the_gateways_clock() {
    let both = || json!({"claims_to_verify": ["exp", "nbf"]});
    let at = |exp: Value, nbf: Value| of_alice(&json!({"iss": "alice", "exp": exp, "nbf": nbf}));
    check(both(), &at(json!(NOW_S + 1), json!(NOW_S)), Seen::Continued);
    check(
        both(),
        &at(json!(NOW_S as f64 + 0.5), json!(NOW_S)),
        Seen::Continued,
    );
    check(
        both(),
        &at(json!(NOW_S), json!(0)),
        refused(r#"{"exp":"token expired"}"#),
    );
    let early = at(json!(NOW_S + 9), json!(NOW_S + 1));
    check(both(), &early, refused(r#"{"nbf":"token not valid yet"}"#));
    check(
        both(),
        &at(json!("soon"), json!(NOW_S + 1)),
        refused(r#"{"exp":"must be a number","nbf":"token not valid yet"}"#),
    );
    // nobody asked
    check(json!({}), &at(json!(1), json!("x")), Seen::Continued);
    let limited = || json!({"claims_to_verify": ["exp"], "maximum_expiration": 60});
    check(limited(), &at(json!(NOW_S + 60), json!(0)), Seen::Continued);
    let far = refused(r#"{"exp":"exceeds maximum allowed expiration"}"#);
    check(limited(), &at(json!(NOW_S + 61), json!(0)), far);
    // a wrong signature is told before a wrong claim
    let forged = hs("HS256", b"x", &json!({"iss": "alice", "exp": 1}));
    check(limited(), &forged, message("Invalid signature"));
}

#[test]
fn a_replayed_token_passes_until_it_ends() {
    let token = of_alice(&json!({"iss": "alice", "exp": NOW_S + 60}));
    let bench = Bench::new(&Jwt, json!({"claims_to_verify": ["exp"]}));
    let at = |after_s| {
        let mut exchange = with_token(&token);
        exchange.now_ms = (NOW_S + after_s) * 1000;
        bench.seen(&mut exchange)
    };
    assert_eq!(at(0), Seen::Continued);
    assert_eq!(at(59), Seen::Continued);
    assert_eq!(at(60), refused(r#"{"exp":"token expired"}"#));
    assert_eq!(at(86_400), refused(r#"{"exp":"token expired"}"#));
}

#[test]
fn a_token_is_found_in_query_cookie_and_header_but_only_one() {
    let alice = of_alice(&json!({"iss": "alice"}));
    let other = of_alice(&json!({"iss": "alice", "n": 1}));
    let run = |config: Value, request: http::request::Builder| {
        Bench::new(&Jwt, config).seen(&mut exchange(request))
    };
    let get = |uri: String| http::Request::get(uri);
    let cookies = || json!({"cookie_names": ["token"], "header_names": ["x-token"]});
    assert_eq!(
        run(json!({}), get(format!("/?a=1&jwt={alice}"))),
        Seen::Continued
    );
    let cookie = get("/".to_owned()).header("cookie", format!("a=1; token={alice}; b=2"));
    assert_eq!(run(cookies(), cookie), Seen::Continued);
    let named = get("/".to_owned()).header("x-token", format!("bearer {alice}"));
    assert_eq!(run(cookies(), named), Seen::Continued);
    let twice = get(format!("/?jwt={alice}")).header("authorization", format!("Bearer {alice}"));
    assert_eq!(
        run(json!({}), twice),
        Seen::Continued,
        "the same token twice is one"
    );
    let two = get(format!("/?jwt={alice}")).header("authorization", format!("Bearer {other}"));
    assert_eq!(run(json!({}), two), message("Multiple tokens provided"));
    let two = get(format!("/?jwt={alice}&jwt={other}"));
    assert_eq!(run(json!({}), two), message("Multiple tokens provided"));
    let none = || Seen::refused(401, r#"{"message":"Unauthorized"}"#);
    let plain = none().with("www-authenticate", "Bearer");
    assert_eq!(run(json!({}), get("/?jwt=".to_owned())), plain);
    let basic = get("/".to_owned()).header("authorization", "Basic x");
    assert_eq!(run(json!({}), basic), plain);
    let realm = none().with("www-authenticate", "Bearer realm=\"r\"");
    assert_eq!(run(json!({"realm": "r"}), get("/".to_owned())), realm);
    let bad = message("Bad token; invalid JSON");
    let bad = bad.with(
        "www-authenticate",
        "Bearer realm=\"r\", error=\"invalid_token\"",
    );
    assert_eq!(run(json!({"realm": "r"}), get("/?jwt=x".to_owned())), bad);
}

#[test]
fn secrets_may_be_base64() {
    let config = || json!({"secret_is_base64": true});
    let claims = json!({"iss": "base64"});
    check(
        config(),
        &hs("HS256", b"\xff\xfe\xfd\xfc", &claims),
        Seen::Continued,
    );
    check(
        config(),
        &hs("HS256", b"//79/A==", &claims),
        message("Invalid signature"),
    );
    check(
        json!({}),
        &hs("HS256", b"//79/A==", &claims),
        Seen::Continued,
    );
}

#[test]
fn the_upstream_learns_the_key_and_preflights_can_pass() {
    let bench = Bench::new(&Jwt, json!({}));
    let mut exchange = with_token(&of_alice(&json!({"iss": "alice"})));
    assert_eq!(bench.seen(&mut exchange), Seen::Continued);
    assert_eq!(header(&exchange, "x-credential-identifier"), Some("alice"));
    assert_eq!(header(&exchange, "x-consumer-username"), Some("alice"));
    let bench = Bench::new(&Jwt, json!({"run_on_preflight": false}));
    let mut preflight = crate::testing::exchange(http::Request::options("/"));
    assert_eq!(bench.seen(&mut preflight), Seen::Continued);
    assert!(preflight.consumer.is_none());
    let bench = Bench::new(&Jwt, json!({"anonymous": "guest"}));
    let mut stranger = with_token("x");
    assert_eq!(bench.seen(&mut stranger), Seen::Continued);
    assert_eq!(header(&stranger, "x-anonymous-consumer"), Some("true"));
}

#[test]
fn bad_settings_are_named() {
    let check = |config, expected: &str| {
        assert_eq!(validate(&Jwt, config).unwrap_err(), expected);
    };
    check(
        json!({"claims_to_verify": ["iat"], "maximum_expiration": -1}),
        "claims_to_verify[0]: expected one of: exp, nbf; maximum_expiration: value should be \
         between 0 and 31536000",
    );
    check(
        json!({"claims_to_verify": ["nbf"], "maximum_expiration": 5}),
        "failed conditional validation given value of field 'maximum_expiration'; \
         claims_to_verify: expected to contain: exp",
    );
}
