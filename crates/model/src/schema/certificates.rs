//! `certificates` that listeners and clients show, the `snis` they are shown for, and
//! `ca_certificates` that are believed. Source of fields and rules: Kong's entities.

use serde_json::{Map, Value, json};

use super::checks;
use super::entity::{EntitySchema, as_given, head, tags};
use super::error::{FieldError, Path};
use super::field::{Field, OnDelete};
use super::record::{EntityCheck, Record};
use crate::Kind;
use crate::certificate::{Certificate, PrivateKey};

pub(super) fn certificate() -> EntitySchema {
    let pem = |name| Field::string(name).referenceable().check(certificate_pem);
    let key = |name| {
        Field::string(name)
            .referenceable()
            .encrypted()
            .check(key_pem)
    };
    let record = Record::new(head().into_iter().chain([
        pem("cert").required(),
        key("key").required(),
        pem("cert_alt"),
        key("key_alt"),
        tags(),
    ]))
    .check(EntityCheck::AllOrNone(&["cert_alt", "key_alt"]))
    .check(EntityCheck::Custom {
        fields: &["cert", "key", "cert_alt", "key_alt"],
        run: pairs,
    });
    EntitySchema {
        kind: Kind::Certificate,
        record,
        endpoint_key: None,
        unique_together: &[],
        prepare: as_given,
    }
}

pub(super) fn sni() -> EntitySchema {
    let record = Record::new(
        head().into_iter().chain([
            Field::string("name").required().unique().check(sni_name),
            tags(),
            Field::foreign("certificate", Kind::Certificate)
                .on_delete(OnDelete::Cascade)
                .required(),
        ]),
    );
    EntitySchema {
        kind: Kind::Sni,
        record,
        endpoint_key: Some("name"),
        unique_together: &[],
        prepare: as_given,
    }
}

pub(super) fn ca_certificate() -> EntitySchema {
    let record = Record::new(head().into_iter().chain([
        Field::string("cert").required().check(authority_pem),
        Field::string("cert_digest").unique(),
        tags(),
    ]));
    EntitySchema {
        kind: Kind::CaCertificate,
        record,
        endpoint_key: None,
        unique_together: &[],
        prepare: digest,
    }
}

/// `*` stands for every name that nothing else is shown for.
fn sni_name(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some("*") => Ok(()),
        _ => checks::sni(value),
    }
}

fn certificate_pem(value: &Value) -> Result<(), String> {
    let read = Certificate::from_pem(value.as_str().unwrap_or_default());
    match read {
        Ok(Certificate { key: Some(_), .. }) => Ok(()),
        Ok(_) => Err("invalid certificate: only RSA, ECDSA and Ed25519 keys are supported".into()),
        Err(error) => Err(format!("invalid certificate: {error}")),
    }
}

fn key_pem(value: &Value) -> Result<(), String> {
    let read = PrivateKey::from_pem(value.as_str().unwrap_or_default());
    read.map(drop)
        .map_err(|error| format!("invalid key: {error}"))
}

fn authority_pem(value: &Value) -> Result<(), String> {
    let read = Certificate::from_pem(value.as_str().unwrap_or_default());
    let certificate = read.map_err(|error| format!("invalid certificate: {error}"))?;
    if certificate.chain > 1 {
        return Err("please submit only one certificate at a time".to_owned());
    }
    match certificate.is_authority {
        true => Ok(()),
        false => Err(
            "certificate does not appear to be a CA because it is missing the \"CA\" basic \
             constraint"
                .to_owned(),
        ),
    }
}

/// Keys belong to their certificates, and the second pair is for those who cannot use the first.
fn pairs(body: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let mut kinds = Vec::new();
    for (cert, key) in [("cert", "key"), ("cert_alt", "key_alt")] {
        let certificate = text(cert).and_then(|text| Certificate::from_pem(text).ok());
        let private = text(key).and_then(|text| PrivateKey::from_pem(text).ok());
        kinds.push(certificate.as_ref().and_then(|it| it.key));
        // references to vaults are read by gateways only
        let (Some(certificate), Some(private)) = (certificate, private) else {
            continue;
        };
        if !certificate.may_belong_to(&private) {
            let message = format!("the private key does not belong to the certificate in '{cert}'");
            errors.push(FieldError::field(path.key(key), message));
        }
    }
    if let [Some(first), Some(second)] = kinds[..]
        && first == second
    {
        let message = "certificate and alternative certificate need to have different type (e.g. \
                       RSA and ECDSA), the provided certificates were both of the same type";
        errors.push(FieldError::field(path.key("cert_alt"), message));
    }
}

/// The digest is Kong's name for what is unique about a certificate; whoever writes it, it is that.
fn digest(body: &mut Map<String, Value>, _: &mut Vec<FieldError>) {
    let text = body.get("cert").and_then(Value::as_str);
    // what is no text is for the schema to refuse
    let given = body.get("cert_digest");
    let replaceable = given.is_none_or(|given| given.is_null() || given.is_string());
    if let Some(certificate) = text.and_then(|text| Certificate::from_pem(text).ok())
        && replaceable
    {
        body.insert("cert_digest".to_owned(), json!(certificate.digest));
    }
}
