//! The key that signs records, made at the first start; its public half is published.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, SigningKey};
use rustls::pki_types::alg_id;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::AuditLogError;

/// An Ed25519 key.
pub(crate) struct Key(KeyPair);

impl Key {
    /// Reads the key from a PEM file, or makes it there, readable by its owner only.
    pub(crate) fn open(path: &Path) -> Result<Key, AuditLogError> {
        let bad = |error: rcgen::Error| AuditLogError::Key {
            path: path.to_owned(),
            detail: error.to_string(),
        };
        match std::fs::read_to_string(path) {
            Ok(pem) => {
                let key = KeyPair::from_pem(&pem).map_err(bad)?;
                if key.algorithm() == &rcgen::PKCS_ED25519 {
                    return Ok(Key(key));
                }
                Err(AuditLogError::Key {
                    path: path.to_owned(),
                    detail: "it is not an Ed25519 key".to_owned(),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(bad)?;
                write(path, &key.serialize_pem()).map_err(|it| AuditLogError::io(path, it))?;
                Ok(Key(key))
            }
            Err(error) => Err(AuditLogError::io(path, error)),
        }
    }

    /// 64 bytes.
    pub(crate) fn sign(&self, text: impl AsRef<[u8]>) -> Vec<u8> {
        let signed = self.0.sign(text.as_ref());
        signed.expect("Ed25519 signs every message without randomness")
    }

    pub(crate) fn public(&self) -> &[u8] {
        self.0.public_key_raw()
    }

    /// The public key as a JSON Web Key Set.
    pub(crate) fn jwks(&self) -> Value {
        let digest = Sha256::digest(self.public());
        json!({"keys": [{
            "kty": "OKP",
            "alg": "EdDSA",
            "crv": "Ed25519",
            "use": "sig",
            "kid": URL_SAFE_NO_PAD.encode(&digest[..12]),
            "x": URL_SAFE_NO_PAD.encode(self.public()),
        }]})
    }
}

/// Writes beside and renames, so that a crash leaves no half of a key.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    _ = std::fs::remove_file(&new); // of a start that was cut short
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// The public key in the text of a JSON Web Key Set, or the bare `x` of one.
pub(super) fn public_from_text(text: &str) -> Option<Vec<u8>> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let x = match value["keys"][0]["x"].as_str() {
        Some(x) => x,
        None => text.trim(),
    };
    URL_SAFE_NO_PAD.decode(x).ok().filter(|key| key.len() == 32)
}

/// Whether `signature` is one of `text` by the holder of the Ed25519 key `public` (32 bytes).
pub(super) fn verify(public: &[u8], text: &[u8], signature: &[u8]) -> bool {
    let provider = rustls::crypto::ring::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let ed25519 = algorithms
        .iter()
        .find(|it| it.signature_alg_id() == alg_id::ED25519)
        .expect("ring verifies Ed25519");
    ed25519.verify_signature(public, text, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_and_its_signatures_verify() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit_log.key");
        let key = Key::open(&path).unwrap();
        let again = Key::open(&path).unwrap();
        assert_eq!(key.public(), again.public());
        let public = public_from_text(&key.jwks().to_string()).unwrap();
        assert_eq!(public, key.public());
        let signature = key.sign("text");
        assert_eq!(signature.len(), 64);
        assert!(verify(&public, b"text", &signature));
        assert!(!verify(&public, b"texT", &signature));
        std::fs::write(&path, "no key").unwrap();
        assert!(Key::open(&path).is_err());
    }
}
