//! `sallyport ports watch`: changes of a published list of addresses, as firewall rules to add and
//! to remove.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};
use sallyport_contract::PublishedList;
use sallyport_doctor::fetch;
use sallyport_runtime::tls::{ServerTrust, provider};

use super::described::{answer, remark};
use super::doctor::trust;
use crate::shutdown::Shutdown;

/// For one fetch.
const LIMIT: Duration = Duration::from_secs(30);

/// Watches a published list of addresses and prints what to add (+) to and to remove (-) from
/// firewalls.
///
/// Works with a list of this product and with that of the hosted control plane
/// (https://ip-addresses.origin.konghq.com/ip-addresses.json).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the list is
    url: String,
    /// The list as it was last seen; written when it changes, so that nothing is missed in between
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Looks once and ends
    #[arg(long, requires = "state")]
    once: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Only this geo, such as `eu`
    #[arg(long)]
    geo: Option<String>,
    /// Certificate of the authority that issued the server's (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<String>,
    /// Public key of the publisher (PEM): a list without its signature (URL.sig, Ed25519) is refused
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Dials this address instead of looking up the host
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let trust = trust(args.ca.as_deref())?;
    let key = args
        .public_key
        .as_deref()
        .map(PublicKey::read)
        .transpose()?;
    let mut known = args.state.as_deref().map(read).transpose()?.flatten();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen();
        let mut etag = None;
        loop {
            match look(args, &trust, key.as_ref(), &mut etag, &mut known).await {
                Err(error) if args.once => return Err(error),
                // A watcher outlives a server that is away for a while.
                Err(error) => remark(&format!("warning: {error:#}")),
                Ok(()) if args.once => return Ok(()),
                Ok(()) => {}
            }
            let pause = tokio::time::sleep(Duration::from_secs(args.interval));
            tokio::select! {
                () = pause => {}
                () = shutdown.requested() => return Ok(()),
            }
        }
    })
}

/// Fetches the list and prints what differs from `known`, which then is the new one.
async fn look(
    args: &Args,
    trust: &ServerTrust,
    key: Option<&PublicKey>,
    etag: &mut Option<String>,
    known: &mut Option<PublishedList>,
) -> anyhow::Result<()> {
    let got = fetch(
        &args.url,
        args.address,
        etag.as_deref(),
        trust.clone(),
        LIMIT,
    )
    .await?;
    if got.status == 304 {
        return Ok(());
    }
    if let Some(key) = key {
        let url = format!("{}.sig", args.url);
        let signature = fetch(&url, args.address, None, trust.clone(), LIMIT).await?;
        if !key.verifies(&got.body, &signature.body) {
            bail!("{url} is no signature of the list by this key: the list is not believed");
        }
    }
    let text = String::from_utf8(got.body).with_context(|| args.url.clone())?;
    let list = PublishedList::parse(&text).with_context(|| args.url.clone())?;
    if let Some(geo) = &args.geo
        && !list.ingress_ips.contains_key(geo)
    {
        let geos: Vec<&str> = list.ingress_ips.keys().map(String::as_str).collect();
        bail!("the list has no geo `{geo}`; it has {}", geos.join(", "));
    }
    let before = known.take().unwrap_or_default();
    answer(&lines(args, &before, &list))?;
    if let Some(path) = &args.state
        && before != list
    {
        write(path, &list)?;
    }
    *known = Some(list);
    *etag = got.etag;
    Ok(())
}

/// An Ed25519 public key.
struct PublicKey([u8; 32]);

impl PublicKey {
    fn read(path: &Path) -> anyhow::Result<PublicKey> {
        /// What stands before the key in its DER form (RFC 8410).
        const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read the public key {}", path.display()))?;
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).ok();
        let key = der
            .as_ref()
            .and_then(|der| der.as_ref().strip_prefix(&HEAD));
        let key = key.and_then(|key| key.try_into().ok()).map(PublicKey);
        key.with_context(|| format!("{} is no Ed25519 public key (PEM)", path.display()))
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let all = provider().signature_verification_algorithms.all;
        let ed25519 = all
            .iter()
            .find(|it| it.signature_alg_id() == alg_id::ED25519);
        ed25519.is_some_and(|it| it.verify_signature(&self.0, message, signature).is_ok())
    }
}

fn lines(args: &Args, before: &PublishedList, after: &PublishedList) -> String {
    let mut text = String::new();
    for change in before.changes(after) {
        if args.geo.as_ref().is_some_and(|geo| *geo != change.geo) {
            continue;
        }
        let geo = &change.geo;
        let rule = |address: &str| match change.side {
            // What the platform itself opens: audit log webhooks to a receiver of ours.
            "egress" => format!("in  from {address} ({geo} egress)"),
            _ => format!("out to {address} 443/tcp ({geo} ingress)"),
        };
        for (mark, addresses) in [("-", &change.removed), ("+", &change.added)] {
            for address in addresses {
                text.push_str(&format!("{mark} {}\n", rule(address)));
            }
        }
    }
    text
}

fn read(path: &Path) -> anyhow::Result<Option<PublishedList>> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let list = PublishedList::parse(&text).with_context(|| path.display().to_string())?;
            Ok(Some(list))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Writes beside and renames, so that a crash leaves the old list or the new one.
fn write(path: &Path, list: &PublishedList) -> anyhow::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, list.json())
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("could not write {}", path.display()))
}
