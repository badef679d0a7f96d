//! `sallyport backup`: backups made, looked at, proven and restored.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use jiff::Timestamp;
use sallyport_appliance::backup::{
    self, Created, Keep, Listed, Manifest, NewKey, Opener, Seal, Sources, Target,
};
use sallyport_store::dump::Database;

/// Makes backups of a control plane and restores them.
///
/// A backup is one encrypted file with everything that a restore needs: database, keys, audit log,
/// settings. Begin with `sallyport backup key`. See docs/backup.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes a key for backups and prints its recipient
    ///
    /// The recipient is what `create` wants, and is not secret. The key opens backups: keep it away
    /// from the machine that is backed up, and more than once.
    Key {
        /// File for the key; it must not be there yet
        #[arg(long, value_name = "FILE", default_value = "sallyport-backup.key")]
        out: PathBuf,
    },
    /// Makes a backup; the control plane may run meanwhile
    Create {
        #[command(flatten)]
        from: From,
        /// Directory for the backup, which gets a name of its own
        #[arg(long, value_name = "DIR", conflicts_with = "out")]
        to: Option<PathBuf>,
        /// File for the backup
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Who can read it (age1…); may be given several times
        #[arg(
            long = "recipient",
            value_name = "RECIPIENT",
            env = "SALLYPORT_BACKUP_RECIPIENT"
        )]
        recipients: Vec<String>,
        /// File whose first line is a passphrase, instead of recipients
        #[arg(long, value_name = "FILE", env = "SALLYPORT_BACKUP_PASSPHRASE_FILE")]
        passphrase_file: Option<PathBuf>,
        /// Another file with settings to put in; may be given several times
        #[arg(long = "include", value_name = "FILE")]
        include: Vec<PathBuf>,
        /// With --to: lets older backups go, as by `prune` with its defaults
        #[arg(long, requires = "to")]
        prune: bool,
    },
    /// Lists the backups in a directory
    List {
        /// The directory
        directory: PathBuf,
    },
    /// Restores a backup into an instance that is thrown away, and compares
    ///
    /// Counts and digests of all tables and files, references between rows, and the chain of the
    /// audit log. Ends with status 1 if something is not right.
    Verify {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        key: Key,
        /// Directory for the instance, which takes the space of all data
        #[arg(long, value_name = "DIR")]
        scratch: Option<PathBuf>,
    },
    /// Restores a backup into a new data directory, and into an empty PostgreSQL database if one is
    /// given
    Restore {
        /// The backup
        file: PathBuf,
        /// Data directory to make
        #[arg(long, value_name = "DIR", env = "SALLYPORT_CONTROL_DATA")]
        data: PathBuf,
        /// PostgreSQL database, instead of a file in the data directory: the backup may come from
        /// either
        #[arg(
            long,
            value_name = "URL",
            env = "SALLYPORT_DATABASE",
            hide_env_values = true
        )]
        database: Option<String>,
        #[command(flatten)]
        key: Key,
        /// As a new node: without what makes the backed-up node that node
        #[arg(long)]
        new_node: bool,
    },
    /// Lets older backups of each node go
    ///
    /// Each rule keeps its own, and what one keeps stays; the newest always does.
    Prune {
        /// The directory
        directory: PathBuf,
        /// How many of the newest stay
        #[arg(long, value_name = "N", default_value_t = Keep::default().last)]
        last: u32,
        /// Of how many days the newest stays
        #[arg(long, value_name = "N", default_value_t = Keep::default().daily)]
        daily: u32,
        /// Of how many weeks the newest stays
        #[arg(long, value_name = "N", default_value_t = Keep::default().weekly)]
        weekly: u32,
        /// Of how many months the newest stays
        #[arg(long, value_name = "N", default_value_t = Keep::default().monthly)]
        monthly: u32,
    },
}

/// What is backed up.
#[derive(Debug, clap::Args)]
struct From {
    /// Data directory of the control plane
    #[arg(
        long,
        value_name = "DIR",
        default_value = "sallyport-data/control",
        env = "SALLYPORT_CONTROL_DATA"
    )]
    data: PathBuf,
    /// Its PostgreSQL database, if it has one
    #[arg(
        long,
        value_name = "URL",
        env = "SALLYPORT_DATABASE",
        hide_env_values = true
    )]
    database: Option<String>,
}

/// What opens a backup.
#[derive(Debug, clap::Args)]
struct Key {
    /// File with the key, as `sallyport backup key` or age-keygen made it
    #[arg(long, value_name = "FILE", env = "SALLYPORT_BACKUP_IDENTITY")]
    identity: Option<PathBuf>,
    /// File whose first line is the passphrase
    #[arg(long, value_name = "FILE", env = "SALLYPORT_BACKUP_PASSPHRASE_FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Key {
    fn opener(&self) -> anyhow::Result<Opener> {
        if self.identity.is_none() && self.passphrase_file.is_none() {
            bail!(
                "a backup is encrypted: give its key with --identity FILE, or --passphrase-file FILE"
            );
        }
        // A key on the command line wins over a passphrase file of the environment.
        let (identity, passphrase) = (self.identity.as_deref(), self.passphrase_file.as_deref());
        Ok(Opener::new(identity, passphrase)?)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Key { out } => make_key(out),
        Command::Create {
            from,
            to,
            out,
            recipients,
            passphrase_file,
            include,
            prune,
        } => {
            let seal = Seal::new(recipients, passphrase_file.as_deref())?;
            if to.is_none() && out.is_none() {
                bail!("where to? --to DIR or --out FILE");
            }
            let sources = sources(&from.data, from.database.as_deref(), include)?;
            let began = Instant::now();
            let now = Timestamp::now();
            let (created, gone) = match (to, out) {
                (Some(directory), _) => {
                    let keep = if *prune { Keep::default() } else { Keep::ALL };
                    backup::in_directory(&sources, &seal, directory, &keep, now)?
                }
                (None, Some(out)) => {
                    if out.exists() {
                        bail!("{} is there already", out.display());
                    }
                    (backup::create(&sources, &seal, out, now)?, Vec::new())
                }
                (None, None) => unreachable!("checked above"),
            };
            report(&created, began)?;
            removed(&gone)
        }
        Command::List { directory } => show(&backup::list(directory)?),
        Command::Verify { file, key, scratch } => {
            let scratch = scratch.clone().unwrap_or_else(std::env::temp_dir);
            let verified = backup::verify(file, &key.opener()?, &scratch, audit_log)?;
            super::print(&format!(
                "{} can be restored: {}\nmade at {} by version {} on {:?}",
                file.display(),
                contents(&verified.manifest),
                verified.header.made_at,
                verified.header.made_by,
                verified.header.node,
            ))
        }
        Command::Restore {
            file,
            data,
            database,
            key,
            new_node,
        } => {
            let target = Target {
                data: data.clone(),
                database: database.clone(),
                identity: !new_node,
            };
            let restored = backup::restore(file, &key.opener()?, &target)?;
            super::print(&format!(
                "restored {} of {} to {}",
                contents(&restored.manifest),
                restored.header.made_at,
                data.display(),
            ))?;
            let Some(settings) = restored.settings else {
                return Ok(());
            };
            super::print(&format!("settings are in {}:", settings.display()))?;
            for file in &restored.manifest.settings {
                super::print(&format!("  {} was {}", file.name, file.was.display()))?;
            }
            Ok(())
        }
        Command::Prune {
            directory,
            last,
            daily,
            weekly,
            monthly,
        } => {
            let keep = Keep {
                last: *last,
                daily: *daily,
                weekly: *weekly,
                monthly: *monthly,
            };
            removed(&backup::prune(directory, &keep)?)
        }
    }
}

/// The name of this machine, for the names of backups.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node" } else { name }.to_owned()
}

/// What belongs to a control plane.
pub(crate) fn sources(
    data: &Path,
    database: Option<&str>,
    settings: &[PathBuf],
) -> anyhow::Result<Sources> {
    let data = std::fs::canonicalize(data).with_context(|| {
        format!(
            "could not open the data directory {}; --data names it",
            data.display()
        )
    })?;
    let database = match database {
        Some(url) => Database::Url(url.to_owned()),
        None => Database::File(data.join("store.sqlite")),
    };
    Ok(Sources {
        database,
        data,
        database_file: "store.sqlite".into(),
        settings: settings.to_vec(),
        identity: Vec::new(),
        node: host_name(),
    })
}

fn make_key(out: &Path) -> anyhow::Result<()> {
    let key = NewKey::generate(Timestamp::now());
    let mut options = OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .and_then(|mut file| {
            file.write_all(key.file.as_bytes())?;
            file.sync_all()
        });
    written.with_context(|| format!("could not make the key file {}", out.display()))?;
    super::print(&format!(
        "{}\nThe key is in {}: move it to a safe place away from this machine.\n\
         Without it no backup can be restored.",
        key.recipient,
        out.display()
    ))
}

/// The audit log of a restored data directory, if there is one.
fn audit_log(data: &Path) -> Result<(), String> {
    // of a control plane, or of a node that hosts one
    for data in [data.to_owned(), data.join("control")] {
        if !data.join("audit.db").exists() {
            continue;
        }
        let summary = sallyport_control::verify_data(&data, None);
        let summary = summary.map_err(|error| format!("its audit log: {error}"))?;
        if summary.faults_count > 0 {
            let faults = summary.faults_count;
            return Err(format!(
                "its audit log is not as it was written: {faults} faults"
            ));
        }
    }
    Ok(())
}

fn contents(manifest: &Manifest) -> String {
    let entities = manifest.tables.iter().find(|table| table.name == "entity");
    format!(
        "{} rows ({} entities) of {} tables, {} files",
        manifest.rows(),
        entities.map_or(0, |table| table.count),
        manifest.tables.len(),
        manifest.files.len()
    )
}

fn report(created: &Created, began: Instant) -> anyhow::Result<()> {
    super::print(&format!(
        "{}: {}, {} in {:.1} s",
        created.path.display(),
        contents(&created.manifest),
        size(created.bytes),
        began.elapsed().as_secs_f64()
    ))
}

fn removed(gone: &[Listed]) -> anyhow::Result<()> {
    for old in gone {
        super::print(&format!("removed {}", old.path.display()))?;
    }
    Ok(())
}

fn show(all: &[Listed]) -> anyhow::Result<()> {
    if all.is_empty() {
        return super::print("no backups");
    }
    let node_max = all.iter().map(|it| it.node.len()).max().unwrap_or(0).max(4);
    super::print(&format!(
        "{:<20}  {:<node_max$}  {:>10}  FILE",
        "MADE AT", "NODE", "SIZE"
    ))?;
    for it in all {
        let name = it.path.file_name().unwrap_or_default().to_string_lossy();
        let (at, node, bytes) = (it.made_at, &it.node, size(it.bytes));
        super::print(&format!(
            "{at:<20.0}  {node:<node_max$}  {bytes:>10}  {name}"
        ))?;
    }
    Ok(())
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1.0 {
        format!("{:.1} KiB", bytes as f64 / 1024.0)
    } else {
        format!("{mib:.1} MiB")
    }
}
