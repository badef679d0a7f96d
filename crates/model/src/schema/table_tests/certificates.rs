//! What certificates, names and authorities take.

use super::*;

#[test]
fn certificates_and_keys_belong_together() {
    let kind = Kind::Certificate;
    refuses(
        kind,
        json!({"cert": EC_CERT}),
        &["key: required field missing"],
    );
    refuses_field(
        kind,
        "key",
        json!(EC_OTHER_KEY),
        "key: the private key does not belong to the certificate in 'cert'",
    );
    refuses_field(
        kind,
        "cert",
        json!("x"),
        "cert: invalid certificate: expected PEM text that begins with -----BEGIN CERTIFICATE-----",
    );
    refuses_field(
        kind,
        "key",
        json!(EC_CERT),
        "key: invalid key: expected PEM text that begins with -----BEGIN PRIVATE KEY-----",
    );
    keeps(
        kind,
        "cert",
        json!("{vault://env/c}"),
        json!("{vault://env/c}"),
    );
    let mut both = smallest(kind);
    both["cert_alt"] = json!(RSA_CERT);
    refuses(
        kind,
        both.clone(),
        &["all or none of these fields must be set: 'cert_alt', 'key_alt'"],
    );
    both["key_alt"] = json!(RSA_KEY);
    assert_eq!(parse(kind, both.clone()).unwrap()["key_alt"], RSA_KEY);
    both["cert_alt"] = json!(EC_CERT);
    both["key_alt"] = json!(EC_KEY);
    let same = "cert_alt: certificate and alternative certificate need to have different type \
                (e.g. RSA and ECDSA), the provided certificates were both of the same type";
    refuses(kind, both, &[same]);
}

#[test]
fn names_and_authorities() {
    for name in ["a.example", "*.example", "a.*", "*"] {
        keeps(Kind::Sni, "name", json!(name), json!(name));
    }
    for name in ["a:80", "a.*.b", "a b", "**"] {
        assert!(
            parse(Kind::Sni, with(Kind::Sni, "name", json!(name))).is_err(),
            "{name}"
        );
    }
    refuses(
        Kind::Sni,
        json!({"name": "a"}),
        &["certificate: required field missing"],
    );
    let kind = Kind::CaCertificate;
    let given = json!({"cert": CA_CERT, "cert_digest": "00"});
    let digest = parse(kind, given).unwrap()["cert_digest"].clone();
    assert_eq!(digest.as_str().map(str::len), Some(64));
    let unique = index(kind, &parse(kind, smallest(kind)).unwrap()).unique;
    assert_eq!(
        unique,
        [("cert_digest", digest.as_str().unwrap().to_owned())]
    );
    refuses_field(
        kind,
        "cert",
        json!(EC_CERT),
        "cert: certificate does not appear to be a CA because it is missing the \"CA\" basic \
         constraint",
    );
    refuses_field(
        kind,
        "cert",
        json!(format!("{CA_CERT}{CA_CERT}")),
        "cert: please submit only one certificate at a time",
    );
}
