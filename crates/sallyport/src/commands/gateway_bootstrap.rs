//! `sallyport gateway --bootstrap`: a first configuration out of a signed file.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use sallyport_control::{public_key, verify_signature};
use sallyport_gateway::conf::Conf;
use sallyport_gateway::last_known_good::{LastKnownGood, Saved};
use sallyport_wire::config_sync::Reconfigure;
use sallyport_wire::config_sync::snapshot::{Header, read};
use tracing::info;

/// Bytes of a configuration once decompressed; the file is signed, so this bounds an absurd one.
const BYTES_MAX: usize = 4 << 30;

/// Makes the configuration of the file the last-known-good one, if there is none yet.
pub(super) fn run(conf: &Conf, file: &Path, key: &Path) -> anyhow::Result<()> {
    let Some(cluster) = &conf.cluster else {
        bail!("--bootstrap is for a gateway with role = data_plane");
    };
    let files = LastKnownGood::new(&conf.prefix);
    if files.load().is_ok_and(|found| found.is_some()) {
        info!("there is a last-known-good configuration, the one to start from is not needed");
        return Ok(());
    }
    let bytes =
        std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
    let text = std::fs::read_to_string(key)
        .with_context(|| format!("could not read {}", key.display()))?;
    let public = public_key(&text).with_context(|| key.display().to_string())?;
    let (header, saved) = verified(&bytes, &public).with_context(|| file.display().to_string())?;
    if let Some(dialled) = prefix(cluster.tls_name())
        && !header.prefix.is_empty()
        && !header.prefix.eq_ignore_ascii_case(dialled)
    {
        bail!(
            "{}: it is of the control plane with the prefix {}, and this gateway dials the one with \
             the prefix {dialled} (cluster_server_name, or the host of cluster_control_plane)",
            file.display(),
            header.prefix
        );
    }
    files.store(&saved)?;
    let Header {
        config_hash,
        version,
        ..
    } = header;
    info!(hash = %config_hash, %version, "starting from an exported configuration");
    Ok(())
}

/// The prefix in a name that data planes dial, `<prefix>.<geo>.cp0.<base>`; `None` if it is another.
fn prefix(name: &str) -> Option<&str> {
    let mut labels = name.split('.');
    let (prefix, _geo, service) = (labels.next()?, labels.next()?, labels.next()?);
    matches!(service, "cp0" | "cp").then_some(prefix)
}

fn verified(bytes: &[u8], public: &[u8]) -> anyhow::Result<(Header, Saved)> {
    let snapshot = read(bytes)?;
    if !verify_signature(public, snapshot.signed, snapshot.signature) {
        bail!("its signature is not of this key, or it was changed after it was signed");
    }
    let header = snapshot.header;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let now = i64::try_from(now)?;
    if now > header.expires_at {
        let end = match jiff::Timestamp::from_second(header.expires_at) {
            Ok(end) => end.to_string(),
            Err(_) => format!("Unix second {}", header.expires_at),
        };
        bail!("it could be started from until {end} only; export a new one");
    }
    let payload = Reconfigure::decode(snapshot.payload, BYTES_MAX)?;
    let saved = Saved {
        hash: header.config_hash,
        version: Some(header.version),
        payload,
    };
    Ok((header, saved))
}
