//! Keys as `openssl` writes them, and everything else.

use proptest::prelude::*;

use super::*;

const RSA_PEM: &str = include_str!("keys/rsa.pem");

#[track_caller]
fn bad(text: &str, error: PublicKeyError) {
    assert_eq!(PublicKey::from_pem(text), Err(error));
}

#[test]
fn keys_of_every_kind_are_read() {
    let of = |text| PublicKey::from_pem(text).unwrap();
    let PublicKey::Rsa(rsa) = of(RSA_PEM) else {
        panic!("an RSA key")
    };
    assert_eq!(
        rsa.len(),
        270,
        "a modulus of 257 and an exponent of 3 bytes"
    );
    assert_eq!(of(include_str!("keys/rsa1.pem")), PublicKey::Rsa(rsa));
    let length = |text| match of(text) {
        PublicKey::P256(point) => (256, point.len()),
        PublicKey::P384(point) => (384, point.len()),
        PublicKey::P521(point) => (521, point.len()),
        PublicKey::Ed25519(key) => (25519, key.len()),
        PublicKey::Rsa(_) => panic!("no RSA key"),
    };
    assert_eq!(length(include_str!("keys/prime256v1.pem")), (256, 65));
    assert_eq!(length(include_str!("keys/secp384r1.pem")), (384, 97));
    assert_eq!(length(include_str!("keys/secp521r1.pem")), (521, 133));
    assert_eq!(length(include_str!("keys/ed25519.pem")), (25519, 32));
    // as it comes out of files of other systems
    let crlf = format!("a comment\r\n{}", RSA_PEM.replace('\n', "\r\n"));
    assert_eq!(of(&crlf), of(RSA_PEM));
}

#[test]
fn what_cannot_be_used_is_named() {
    bad("", PublicKeyError::NotPem);
    bad("-----BEGIN PUBLIC KEY-----", PublicKeyError::NotPem);
    bad(
        &RSA_PEM.replace("PUBLIC", "PRIVATE"),
        PublicKeyError::NotPem,
    );
    bad(&RSA_PEM.replace('M', "*"), PublicKeyError::Damaged);
    bad(
        include_str!("keys/small.pem"),
        PublicKeyError::RsaSize(1024),
    );
    bad(include_str!("keys/secp256k1.pem"), PublicKeyError::Kind);
    bad(include_str!("keys/compressed.pem"), PublicKeyError::Kind);
    bad(include_str!("keys/ed448.pem"), PublicKeyError::Kind);
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,80}", block in "[A-Za-z0-9+/=\n]{0,80}") {
        let _ = PublicKey::from_pem(&text);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{block}\n-----END PUBLIC KEY-----\n");
        let _ = PublicKey::from_pem(&pem);
    }

    #[test]
    fn no_encoding_panics(mut der in any::<[u8; 40]>(), cut in 0_usize..300, byte in any::<u8>()) {
        der[0] = SEQUENCE;
        let _ = spki(&der);
        let _ = rsa(&der);
        let PublicKey::Rsa(mut good) = PublicKey::from_pem(RSA_PEM).unwrap() else {
            unreachable!()
        };
        let at = cut % good.len();
        good[at] = byte;
        let _ = rsa(&good);
        let _ = rsa(&good[..at]);
    }
}
