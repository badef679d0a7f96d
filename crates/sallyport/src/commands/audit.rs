//! `sallyport audit`: the audit log as a file, and what was done to it.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sallyport_control::{export, public_key, verify_data, verify_export};
use sallyport_wire::audit_log::Summary;
use sallyport_wire::audit_log::chain::hex;

/// Exports the audit log, or searches it for gaps and edits.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Writes the records as lines of JSON, each signed, with a signed end
    ///
    /// Works while the control plane runs.
    Export {
        /// Data directory of the control plane
        #[arg(
            long,
            value_name = "DIR",
            default_value = "sallyport-data/control",
            env = "SALLYPORT_CONTROL_DATA"
        )]
        data: PathBuf,
        /// Number of the first record to write
        #[arg(long, value_name = "SEQ", default_value_t = 1)]
        from: u64,
        /// File to write; standard output without it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Finds every record that is missing, edited, moved or added
    ///
    /// Ends with status 1 if there is one.
    Verify {
        /// An exported log
        #[arg(required_unless_present = "data", conflicts_with = "data")]
        file: Option<PathBuf>,
        /// The log in this data directory instead; works while the control plane runs
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// The published key (jwks.json) that signed the exported log, from a source you trust
        #[arg(
            long,
            value_name = "FILE",
            required_unless_present = "data",
            conflicts_with = "data"
        )]
        key: Option<PathBuf>,
        /// A last record that an earlier search printed, to notice that an older log, or another one,
        /// was put in the place of the one that was seen then
        #[arg(long, value_name = "SEQ:HASH", value_parser = noted)]
        seen: Option<(u64, [u8; 32])>,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Export { data, from, out } => write(data, *from, out.as_deref()),
        Command::Verify {
            file,
            data,
            key,
            seen,
        } => {
            let (name, summary) = match (file, data, key) {
                (_, Some(data), _) => (data, verify_data(data, *seen)?),
                (Some(file), None, Some(key)) => (file, of_file(file, key, *seen)?),
                _ => bail!("an exported log needs the published key: --key jwks.json"),
            };
            report(name, &summary)
        }
    }
}

fn write(data: &Path, from: u64, out: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = out else {
        let out = std::io::stdout().lock();
        export(data, from, &mut BufWriter::new(out))?;
        return Ok(());
    };
    let file = File::create(path).with_context(|| format!("could not write {}", path.display()))?;
    let mut file = BufWriter::new(file);
    let count = export(data, from, &mut file)?;
    let written = file.flush().and_then(|()| file.get_ref().sync_all());
    written.with_context(|| format!("could not write {}", path.display()))?;
    super::print(&format!("{count} records in {}", path.display()))
}

fn of_file(file: &Path, key: &Path, seen: Option<(u64, [u8; 32])>) -> anyhow::Result<Summary> {
    let text = std::fs::read_to_string(key)
        .with_context(|| format!("could not read the key {}", key.display()))?;
    let public = public_key(&text).with_context(|| key.display().to_string())?;
    let opened = File::open(file).with_context(|| format!("could not read {}", file.display()))?;
    verify_export(BufReader::new(opened), &public, seen)
        .with_context(|| format!("could not read {}", file.display()))
}

/// Reads `SEQ:HASH`.
fn noted(text: &str) -> Result<(u64, [u8; 32]), String> {
    let read = || {
        let (seq, digits) = text.split_once(':')?;
        let mut hash = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
        }
        Some((seq.parse().ok()?, hash))
    };
    read().ok_or_else(|| "it has the form SEQ:HASH, as an earlier search printed it".to_owned())
}

fn report(name: &Path, summary: &Summary) -> anyhow::Result<()> {
    let name = name.display();
    for fault in &summary.faults {
        super::print(&format!("{name}: line {}: {}", fault.line, fault.kind))?;
    }
    if summary.faults_count > 0 {
        bail!(
            "{name} is not as it was written: {} faults",
            summary.faults_count
        );
    }
    let head = hex(&summary.head);
    super::print(&match summary.records {
        0 => format!("{name} is intact: no records"),
        records => format!(
            "{name} is intact: {records} records, {} to {}\nlast record: {}:{head}",
            summary.first, summary.last, summary.last
        ),
    })
}
