//! The certificate that every proxy shows where clients come with TLS.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sallyport_runtime::certs::LocalCa;

/// The name in the certificate.
pub(crate) const NAME: &str = "bench.localhost";
/// The file of the authority in the directory of a round.
pub(crate) const CA: &str = "ca.pem";
const CERT: &str = "tls.crt";
const KEY: &str = "tls.key";
const BOTH: &str = "tls.pem";

/// Files of one round: ECDSA on P-256, from an authority of the round.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file.
    pub(crate) both: PathBuf,
}

/// Makes an authority and a certificate in `dir`.
pub(crate) fn files(dir: &Path) -> anyhow::Result<Files> {
    let ca = LocalCa::create("bench", 2).context("no authority")?;
    let pair = ca
        .issue_server(&[NAME, "127.0.0.1"], 2)
        .context("no certificate")?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("could not write {path:?}"))?;
        anyhow::Ok(path)
    };
    write(CA, &ca.pem().cert)?;
    Ok(Files {
        cert: write(CERT, &pair.cert)?,
        key: write(KEY, &pair.key)?,
        both: write(BOTH, &format!("{}{}", pair.cert, pair.key))?,
    })
}
