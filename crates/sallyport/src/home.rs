//! The directory a control plane keeps its state in: database, certificates, token.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use sallyport_control::{Bootstrap, bootstrap};
use sallyport_runtime::certs::{LocalCa, PemPair};
use sallyport_runtime::tls::Identity;
use sallyport_store::Store;

/// How long the control plane's own authority is valid.
const CA_DAYS: u32 = 10 * 365;
/// How long its server certificate is; it is made anew at a start in its last month.
const SERVER_DAYS: u32 = 365;
const RENEW_BEFORE_SECS: i64 = 30 * 24 * 3600;

/// A control plane's state, ready to run on.
pub(crate) struct Home {
    /// The directory.
    pub(crate) path: PathBuf,
    pub(crate) store: Store,
    pub(crate) bootstrap: Bootstrap,
    /// What the listener shows.
    pub(crate) identity: Identity,
    /// The authority that issued it, and certifies gateways that enrol.
    pub(crate) issuer: Arc<LocalCa>,
}

impl Home {
    /// Opens the directory, and makes in it what is missing. The state is in the PostgreSQL
    /// database at the URL `database`, or in a file of the directory if there is none.
    ///
    /// # Errors
    /// A file cannot be read or written, or holds something else; the error names it.
    pub(crate) async fn open(
        path: &Path,
        database: Option<&str>,
        base_domain: &str,
        geos: &[&str],
    ) -> anyhow::Result<Home> {
        make_directory(path)?;
        let store = match database {
            Some(url) => Store::connect(url).await?,
            None => Store::open(&path.join("store.sqlite"))?,
        };
        Home::on(path, store, base_domain, geos).await
    }

    /// As [`Home::open`], with a database that is open already.
    ///
    /// # Errors
    /// As [`Home::open`].
    pub(crate) async fn on(
        path: &Path,
        store: Store,
        base_domain: &str,
        geos: &[&str],
    ) -> anyhow::Result<Home> {
        make_directory(path)?;
        let path = fs::canonicalize(path)
            .with_context(|| format!("could not open the directory {}", path.display()))?;
        let identity = identity(&path, base_domain, geos)?;
        let issuer = Arc::new(authority(&path)?);
        let token_file = path.join("token");
        let known = read_optional(&token_file)?;
        let name = token_name(&store, &path);
        let bootstrap = bootstrap(&store, &name, known.as_deref().map(str::trim)).await?;
        if known.as_deref().map(str::trim) != Some(&bootstrap.token) {
            write_private(&token_file, &format!("{}\n", bootstrap.token))?;
        }
        Ok(Home {
            path,
            store,
            bootstrap,
            identity,
            issuer,
        })
    }

    /// Where the authority's certificate is, for clients to trust.
    pub(crate) fn ca_path(&self) -> PathBuf {
        self.path.join("ca.crt")
    }
}

/// What the token of this directory is called. Of processes that share a database each has its own.
fn token_name(store: &Store, home: &Path) -> String {
    if !store.is_shared() {
        return "quickstart".to_owned();
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("quickstart {}:{}", host.trim(), home.display())
}

/// The installation's own authority, made at the first start.
fn authority(home: &Path) -> anyhow::Result<LocalCa> {
    let ca = pair(home, "ca", || {
        LocalCa::create("Sallyport local CA", CA_DAYS).map(|ca| ca.pem().clone())
    })?;
    LocalCa::load(ca).context("ca.crt and ca.key cannot be used")
}

/// The listener's certificate: kept while it is valid and has all names, made anew otherwise.
pub(crate) fn identity(home: &Path, base_domain: &str, geos: &[&str]) -> anyhow::Result<Identity> {
    let ca = authority(home)?;
    let names = names(base_domain, geos);
    let names_file = home.join("server.names");
    let wanted = names.join("\n");
    if read_optional(&names_file)?.is_none_or(|made_for| made_for != wanted) || expires_soon(home)?
    {
        let server = ca
            .issue_server(&names, SERVER_DAYS)
            .context("could not make a certificate")?;
        write_private(&home.join("server.key"), &server.key)?;
        write_public(&home.join("server.crt"), &server.cert)?;
        write_public(&names_file, &wanted)?;
    }
    let (certificate, key) = (home.join("server.crt"), home.join("server.key"));
    Identity::load(&certificate.to_string_lossy(), &key.to_string_lossy())
        .with_context(|| format!("{} and its key cannot be used", certificate.display()))
}

fn expires_soon(home: &Path) -> anyhow::Result<bool> {
    let Some(pem) = read_optional(&home.join("server.crt"))? else {
        return Ok(true);
    };
    let chain = sallyport_runtime::tls::certificates(&pem).context("server.crt is damaged")?;
    let leaf = chain.first().context("server.crt is empty")?;
    let not_after = sallyport_runtime::tls::not_after(leaf).context("server.crt is damaged")?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(not_after - i64::try_from(now.as_secs())? < RENEW_BEFORE_SECS)
}

/// Every name that the listener answers to.
fn names(base: &str, geos: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for host in ["cloud", "global.api", "ip-addresses.origin"] {
        names.push(format!("{host}.{base}"));
    }
    for geo in geos {
        for host in ["api", "kic.api", "*.cp0", "*.tp0", "*.cp", "*.tp"] {
            let host = match host.strip_prefix("*.") {
                Some(rest) => format!("*.{geo}.{rest}.{base}"),
                None => format!("{geo}.{host}.{base}"),
            };
            names.push(host);
        }
    }
    names
}

/// A certificate and its key, from `<name>.crt` and `<name>.key`, or newly made.
pub(crate) fn pair<E>(
    home: &Path,
    name: &str,
    make: impl FnOnce() -> Result<PemPair, E>,
) -> anyhow::Result<PemPair>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (cert_file, key_file) = (
        home.join(format!("{name}.crt")),
        home.join(format!("{name}.key")),
    );
    // Two files cannot appear at once: the certificate waits here until its key is there.
    let pending = home.join(format!("{name}.crt.pending"));
    let show = |cert: String| -> anyhow::Result<String> {
        fs::rename(&pending, &cert_file)
            .with_context(|| format!("could not write {}", cert_file.display()))?;
        Ok(cert)
    };
    match (read_optional(&cert_file)?, read_optional(&key_file)?) {
        (Some(cert), Some(key)) => Ok(PemPair { cert, key }),
        (None, None) => {
            let pair = make().context("could not make a certificate")?;
            write_public(&pending, &pair.cert)?;
            write_private(&key_file, &pair.key)?;
            Ok(PemPair {
                cert: show(pair.cert)?,
                key: pair.key,
            })
        }
        (None, Some(key)) if let Some(cert) = read_optional(&pending)? => {
            // the start that made them was cut short
            Ok(PemPair {
                cert: show(cert)?,
                key,
            })
        }
        (Some(_), None) => bail!(
            "{} is there, its key {} is not; restore it, or delete both",
            cert_file.display(),
            key_file.display()
        ),
        (None, Some(_)) => bail!(
            "{} is there, its certificate {} is not; restore it, or delete both",
            key_file.display(),
            cert_file.display()
        ),
    }
}

/// Makes a directory that only its owner may enter.
pub(crate) fn make_directory(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("could not make the directory {}", path.display()))
}

pub(crate) fn read_optional(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    write(path, text, 0o600)
}

pub(crate) fn write_public(path: &Path, text: &str) -> anyhow::Result<()> {
    write(path, text, 0o644)
}

/// Writes beside and renames, so that a crash leaves the old file or the new one.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().with_context(|| format!("could not write {}", path.display()))
}
