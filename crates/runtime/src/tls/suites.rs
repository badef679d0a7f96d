//! Cipher suites by the names that OpenSSL, and so nginx and Kong, have for them.

use rustls::CipherSuite;

use super::provider;

/// OpenSSL's name of a suite that this build has; of any other the name in the standard, or
/// nothing.
pub fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other.as_str().unwrap_or(""),
    }
}

/// The suite of TLS 1.2 that OpenSSL calls so, if this build has it.
pub fn tls12_suite(name: &str) -> Option<CipherSuite> {
    let all = provider();
    all.cipher_suites
        .iter()
        .filter(|suite| suite.tls13().is_none())
        .map(rustls::SupportedCipherSuite::suite)
        .find(|suite| openssl_name(*suite) == name)
}

/// OpenSSL's names of the suites of TLS 1.2 that this build has.
pub fn tls12_names() -> Vec<&'static str> {
    let all = provider();
    let old = all
        .cipher_suites
        .iter()
        .filter(|suite| suite.tls13().is_none());
    old.map(|suite| openssl_name(suite.suite())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_a_name_that_leads_back() {
        let names = tls12_names();
        assert_eq!(names.len(), 6);
        for name in names {
            assert_eq!(tls12_suite(name).map(openssl_name), Some(name));
        }
        assert_eq!(tls12_suite("DHE-RSA-AES256-GCM-SHA384"), None);
        assert_eq!(tls12_suite("TLS_AES_128_GCM_SHA256"), None);
    }
}
