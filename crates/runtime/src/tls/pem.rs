//! Certificates and keys as settings hold them: a path, PEM text, or base64 of PEM text.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a setting gave no certificate or key. No message contains key material.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The value is empty.
    #[error("is empty")]
    Empty,
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Neither a file, nor PEM, nor base64 of PEM.
    #[error("is neither the path of a file, nor PEM text, nor base64 of PEM text{}", hint(.start))]
    NotPem {
        /// The value if it looks like a path; else empty.
        start: String,
    },
    /// The PEM text is broken.
    #[error("is broken PEM text: {0}")]
    Broken(String),
    /// The PEM text holds no certificate.
    #[error("holds no CERTIFICATE section")]
    NoCertificate,
    /// The PEM text holds no private key.
    #[error("holds no PRIVATE KEY section")]
    NoKey,
    /// The key needs a pass phrase.
    #[error("holds an encrypted private key; give it unencrypted (openssl pkey -in … -out …)")]
    Encrypted,
}

fn hint(start: &str) -> String {
    if start.is_empty() {
        String::new()
    } else {
        format!(": there is no file {start:?}")
    }
}

/// The PEM text that a setting's value stands for.
///
/// # Errors
/// No such file, or a value that is none of the three forms.
pub fn read_pem(value: &str) -> Result<String, PemError> {
    let value = value.trim();
    if value.is_empty() {
        return Err(PemError::Empty);
    }
    if value.contains("-----BEGIN ") {
        return Ok(value.to_owned());
    }
    match std::fs::read_to_string(value) {
        Ok(text) => Ok(text),
        Err(error) if absent(&error) => decode(value).ok_or_else(|| PemError::NotPem {
            start: if looks_like_path(value) {
                value.to_owned()
            } else {
                String::new()
            },
        }),
        Err(source) => Err(PemError::Read {
            path: value.to_owned(),
            source,
        }),
    }
}

/// No file of this name, or a name no file can have (long base64).
fn absent(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(
        error.kind(),
        NotFound | InvalidFilename | InvalidInput | NotADirectory
    )
}

/// Base64 holds slashes too, so only short values are repeated in a message.
fn looks_like_path(value: &str) -> bool {
    value.len() < 200 && !value.contains('\n')
}

fn decode(value: &str) -> Option<String> {
    let packed: String = value.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let text = String::from_utf8(STANDARD.decode(packed).ok()?).ok()?;
    text.contains("-----BEGIN ").then_some(text)
}

/// Every certificate in a PEM text, in order; at least one.
///
/// # Errors
/// Broken PEM, or no certificate in it.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| PemError::Broken(error.to_string()))?;
    if chain.is_empty() {
        Err(PemError::NoCertificate)
    } else {
        Ok(chain)
    }
}

/// The first private key (PKCS#8, PKCS#1 or SEC1) in a PEM text.
///
/// # Errors
/// Broken PEM, no key in it, or one that needs a pass phrase.
pub fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, PemError> {
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(key) => Ok(key),
        Err(_) if pem.contains("ENCRYPTED") => Err(PemError::Encrypted),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => Err(PemError::NoKey),
        // The library's message may quote the text.
        Err(_) => Err(PemError::Broken(
            "the key section cannot be read".to_owned(),
        )),
    }
}
