//! `diagnostics`: one file with what helps to find out what is wrong, and without secrets.

use std::path::Path;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use sallyport_wire::appliance_cli::Reply;
use sha2::{Digest, Sha256};

use super::{Backups, Entry, Site, file_entry, redact, status};

/// Lines of the log in it.
const LINES: usize = 2_000;
/// Bytes of a configuration file that are looked at.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Bytes in a frame.
const CHUNK_BYTES: usize = 256 << 10;
/// Files of the kernel that say how the machine is.
const MACHINE: [&str; 9] = [
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/uptime",
    "/proc/version",
    "/proc/mounts",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/self/status",
];

pub(super) fn entries(site: &Arc<Site>, backups: &Arc<Backups>) -> Vec<Entry> {
    let (site, backups) = (Arc::clone(site), Arc::clone(backups));
    let about = "fetches a bundle for support: status, log, configuration without secrets";
    vec![file_entry("diagnostics", about, &[], move |call| {
        let (site, backups) = (Arc::clone(&site), Arc::clone(&backups));
        Box::pin(async move {
            let name = format!("diagnostics-{}.tar.gz", site.node);
            let made = tokio::task::spawn_blocking(move || bundle(&site, &backups)).await;
            let bytes = match made {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(error)) => return Reply::refused("failed", error.to_string()),
                Err(error) => return Reply::refused("failed", error.to_string()),
            };
            let digest = Sha256::digest(&bytes);
            let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let total = bytes.len();
            for chunk in bytes.chunks(CHUNK_BYTES) {
                if call.outlet.data(chunk.to_vec()).await.is_err() {
                    return Reply::refused("gone", "the client has left");
                }
            }
            Reply::new("the bundle is whole")
                .with("name", name)
                .with("bytes", total)
                .with("sha256", sha256)
        })
    })]
}

fn bundle(site: &Site, backups: &Backups) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut add = |path: &str, text: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text)
    };
    let facts = serde_json::to_string_pretty(&status::facts(site, backups))?;
    add("status.json", facts.as_bytes())?;
    let log = (site.logs)(LINES).join("\n");
    add("log.txt", redact(&log).as_bytes())?;
    for (at, path) in site.configuration.iter().enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read(path).unwrap_or_else(|error| error.to_string().into_bytes());
        let text = String::from_utf8_lossy(&text[..text.len().min(FILE_BYTES_MAX)]).into_owned();
        add(
            &format!("configuration/{at}-{name}"),
            redact(&text).as_bytes(),
        )?;
    }
    let hosts = std::fs::read_to_string(&site.hosts).unwrap_or_default();
    add("hosts", hosts.as_bytes())?;
    for path in MACHINE {
        let text = std::fs::read(path).unwrap_or_default();
        add(&format!("machine{path}"), &text)?;
    }
    add("data.txt", listing(&site.sources.data).as_bytes())?;
    tar.into_inner()?.finish()
}

/// Names, sizes and modes of what is in the data directory, not what is in it.
fn listing(data: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let mut lines: Vec<String> = std::fs::read_dir(data)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            let name = entry.file_name();
            let (mode, size) = (meta.mode() & 0o7777, meta.len());
            Some(format!("{mode:04o} {size:>12} {}", name.to_string_lossy()))
        })
        .collect();
    lines.sort();
    lines.join("\n") + "\n"
}
