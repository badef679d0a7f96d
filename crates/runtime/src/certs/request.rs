//! Certificates for keys that never leave the machine that made them: only a request travels.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose,
    KeyPair, KeyUsagePurpose, PublicKeyData,
};
use sha2::{Digest, Sha256};

use super::{CertsError, LocalCa, params};

/// A new key, and what an authority needs to certify it.
pub struct NewKey {
    /// `CERTIFICATE REQUEST` section, signed by the key. It names nothing: the authority decides.
    pub request: String,
    /// `PRIVATE KEY` section (PKCS#8), EC P-256.
    pub key: String,
}

impl NewKey {
    /// Makes one.
    ///
    /// # Errors
    /// Making or signing failed.
    pub fn create() -> Result<NewKey, CertsError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?.pem()?;
        Ok(NewKey {
            request,
            key: key.serialize_pem(),
        })
    }
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").finish_non_exhaustive()
    }
}

/// A request whose signature is right: who sent it has the key.
pub struct Request(CertificateSigningRequestParams);

impl Request {
    /// Reads a `CERTIFICATE REQUEST` section.
    ///
    /// # Errors
    /// Not one, or not signed by its key.
    pub fn parse(pem: &str) -> Result<Request, CertsError> {
        let parsed = CertificateSigningRequestParams::from_pem(pem);
        parsed
            .map(Request)
            .map_err(|error| CertsError::Make(format!("the certificate request: {error}")))
    }

    /// SHA-256 of the key (its SubjectPublicKeyInfo), as [`crate::tls::leaf::key_digest`] has it.
    pub fn key_digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.public_key.subject_public_key_info()).into()
    }
}

impl LocalCa {
    /// Certifies the key of a request, for both ends of TLS. Names that the request has are
    /// ignored; the certificate (PEM) has these.
    ///
    /// # Errors
    /// See [`CertsError`]; at least one name is needed.
    pub fn issue_requested<S: AsRef<str>>(
        &self,
        request: Request,
        common_name: &str,
        names: &[S],
        days: u32,
    ) -> Result<String, CertsError> {
        let mut wanted = params(common_name, names, days)?;
        wanted.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        wanted.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        wanted.use_authority_key_identifier_extension = true;
        let mut request = request.0;
        request.params = wanted;
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}
