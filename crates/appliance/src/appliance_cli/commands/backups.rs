//! `backup` and its companions: one backup at a time is held for whoever asked for it.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use sallyport_wire::appliance_cli::Reply;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::{error, info};

use super::{Call, Entry, Site, entry, file_entry};
use crate::backup::{self, Keep, Seal, Sources};

/// Bytes of a file in a frame.
const CHUNK_BYTES: usize = 256 << 10;
/// Where the directory of backups stands, once the node has the role.
const ROLE: &str = "backup-role";

/// The backups of a node, as commands see them.
pub struct Backups {
    sources: Sources,
    seal: Option<Seal>,
    state: Mutex<State>,
    role: PathBuf,
}

#[derive(Default)]
struct State {
    /// Where backups are.
    directory: Option<PathBuf>,
    running: bool,
    /// Why the last one failed.
    failure: Option<String>,
}

impl std::fmt::Debug for Backups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backups").finish_non_exhaustive()
    }
}

impl Backups {
    pub(super) fn new(site: &Site) -> Backups {
        let role = site.sources.data.join(ROLE);
        let given = std::fs::read_to_string(&role)
            .ok()
            .map(|it| PathBuf::from(it.trim()));
        Backups {
            sources: site.sources.clone(),
            seal: site.seal.clone(),
            state: Mutex::new(State {
                directory: given.or_else(|| site.backups.clone()),
                ..State::default()
            }),
            role,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self) -> Result<PathBuf, Reply> {
        let told = "this node does not keep backups; set-as-backup DIRECTORY gives it the role";
        let directory = self.state().directory.clone();
        directory.ok_or_else(|| Reply::refused("no_role", told))
    }

    /// The newest backup, if there is one.
    fn newest(&self) -> Result<Option<backup::Listed>, Reply> {
        let directory = self.directory()?;
        if !directory.exists() {
            return Ok(None);
        }
        let all = backup::list(&directory);
        let mut all = all.map_err(|error| Reply::refused("failed", error.to_string()))?;
        Ok(all.pop())
    }

    pub(super) fn facts(&self) -> Value {
        let newest = self.newest().ok().flatten();
        let state = self.state();
        json!({
            "directory": state.directory.as_ref().map(|it| it.display().to_string()),
            "running": state.running,
            "failure": state.failure,
            "newest": newest.map(|it| it.made_at.to_string()),
        })
    }
}

pub(super) fn entries(backups: &Arc<Backups>) -> Vec<Entry> {
    let with = |run: fn(Arc<Backups>, Call) -> Reply| {
        let backups = Arc::clone(backups);
        move |call: Call| -> super::Later<'static, Reply> {
            let backups = Arc::clone(&backups);
            Box::pin(async move {
                let done = tokio::task::spawn_blocking(move || run(backups, call)).await;
                done.unwrap_or_else(|error| Reply::refused("failed", error.to_string()))
            })
        }
    };
    let (own, name) = (
        Arc::clone(backups),
        ("name?", "of the backup [default: the newest]"),
    );
    vec![
        entry(
            "backup",
            "begins a backup; backup-status tells of it",
            &[
                (
                    "*passphrase?",
                    "12 characters or more, instead of the node's recipients",
                ),
                ("recipient?", "age1…, instead of the node's recipients"),
            ],
            with(begin),
        ),
        entry(
            "backup-status",
            "what came of the backup",
            &[],
            with(status),
        ),
        file_entry(
            "backup-retrieve",
            "fetches a backup",
            &[name, ("offset?", "bytes that are there already")],
            move |call| Box::pin(retrieve(Arc::clone(&own), call)),
        ),
        entry("backup-delete", "removes a backup", &[name], with(delete)),
        entry(
            "set-as-backup",
            "lets the node keep backups, in a directory of its own",
            &[
                ("directory", "absolute path, best on a disk of its own"),
                ("force?", "yes, if there are backups in it already"),
            ],
            with(set_role),
        ),
    ]
}

fn begin(backups: Arc<Backups>, call: Call) -> Reply {
    let directory = match backups.directory() {
        Ok(directory) => directory,
        Err(refused) => return refused,
    };
    let seal = match (call.get("passphrase"), call.get("recipient")) {
        (None, None) => match &backups.seal {
            Some(seal) => Ok(seal.clone()),
            None => {
                let told =
                    "for whom? This node has no recipients: give a recipient or a passphrase";
                return Reply::refused("bad_arguments", told);
            }
        },
        (Some(passphrase), None) => Seal::passphrase(passphrase),
        (None, Some(recipient)) => Seal::new(&[recipient.to_owned()], None),
        (Some(_), Some(_)) => Err(backup::KeyError::Both),
    };
    let seal = match seal {
        Ok(seal) => seal,
        Err(error) => return Reply::refused("bad_arguments", error.to_string()),
    };
    {
        let mut state = backups.state();
        if state.running {
            return Reply::refused("busy", "a backup is being made; backup-status tells of it");
        }
        state.running = true;
        state.failure = None;
    }
    let own = Arc::clone(&backups);
    let thread = std::thread::Builder::new().name("backup".to_owned());
    let started = thread.spawn(move || {
        let now = Timestamp::now();
        let made = backup::in_directory(&own.sources, &seal, &directory, &Keep::ALL, now);
        let failure = match made {
            Ok((created, _)) => {
                info!(path = %created.path.display(), bytes = created.bytes, "backup made");
                None
            }
            Err(error) => {
                error!(%error, "no backup could be made");
                Some(error.to_string())
            }
        };
        let mut state = own.state();
        state.running = false;
        state.failure = failure;
    });
    match started {
        Ok(_) => Reply::new("the backup is in progress"),
        Err(error) => {
            backups.state().running = false;
            Reply::refused("failed", error.to_string())
        }
    }
}

fn status(backups: Arc<Backups>, _: Call) -> Reply {
    let (running, failure) = {
        let state = backups.state();
        (state.running, state.failure.clone())
    };
    if running {
        return Reply::new("the backup is in progress").with("running", true);
    }
    if let Some(failure) = failure {
        return Reply::refused("failed", format!("the last backup failed: {failure}"));
    }
    let found = match backups.newest() {
        Ok(found) => found,
        Err(refused) => return refused,
    };
    let Some(found) = found else {
        return Reply::refused("not_found", "there is no backup");
    };
    match digest(&found.path) {
        Ok(sha256) => Reply::new("found")
            .with("name", file_name(&found.path))
            .with("bytes", found.bytes)
            .with("sha256", sha256)
            .with("made_at", found.made_at.to_string())
            .with("running", false),
        Err(error) => Reply::refused("failed", error.to_string()),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The backup that a call names, or the newest.
fn named(backups: &Backups, name: Option<&str>) -> Result<PathBuf, Reply> {
    let directory = backups.directory()?;
    let Some(name) = name else {
        let newest = backups.newest()?.map(|it| it.path);
        return newest.ok_or_else(|| Reply::refused("not_found", "there is no backup"));
    };
    // Only what is listed is a name: nothing else of the directory or the machine is.
    let all = backup::list(&directory);
    let all = all.map_err(|error| Reply::refused("failed", error.to_string()))?;
    let found = all.into_iter().find(|it| file_name(&it.path) == name);
    let missing = || Reply::refused("not_found", format!("there is no backup {name:?}"));
    found.map(|it| it.path).ok_or_else(missing)
}

fn delete(backups: Arc<Backups>, call: Call) -> Reply {
    let path = match named(&backups, call.get("name")) {
        Ok(path) => path,
        Err(refused) => return refused,
    };
    match std::fs::remove_file(&path) {
        Ok(()) => Reply::new("removed").with("name", file_name(&path)),
        Err(error) => Reply::refused("failed", format!("{}: {error}", path.display())),
    }
}

fn set_role(backups: Arc<Backups>, call: Call) -> Reply {
    let directory = PathBuf::from(call.get("directory").unwrap_or_default());
    if !directory.is_absolute() {
        return Reply::refused("bad_arguments", "the directory is an absolute path");
    }
    let force = matches!(call.get("force"), Some("yes" | "true" | "force"));
    let there = backup::list(&directory).unwrap_or_default();
    if !there.is_empty() && !force {
        let told = format!(
            "there are {} backups in {} already; `force yes` takes it all the same",
            there.len(),
            directory.display()
        );
        return Reply::refused("not_empty", told);
    }
    let set = std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::write(&backups.role, format!("{}\n", directory.display())));
    if let Err(error) = set {
        return Reply::refused("failed", format!("{}: {error}", directory.display()));
    }
    let told = format!("this node keeps backups in {}", directory.display());
    backups.state().directory = Some(directory);
    Reply::new(told)
}

fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn retrieve(backups: Arc<Backups>, call: Call) -> Reply {
    let offset = call.get("offset").unwrap_or("0").parse::<u64>();
    let Ok(offset) = offset else {
        return Reply::refused("bad_arguments", "offset is a number of bytes");
    };
    let name = call.get("name").map(str::to_owned);
    let opened = tokio::task::spawn_blocking(move || {
        let path = named(&backups, name.as_deref())?;
        let failed = |error: std::io::Error| {
            Reply::refused("failed", format!("{}: {error}", path.display()))
        };
        let sha256 = digest(&path).map_err(failed)?;
        let mut file = std::fs::File::open(&path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        if offset > bytes {
            let told = format!("the backup has {bytes} bytes, fewer than {offset}");
            return Err(Reply::refused("bad_arguments", told));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok((path, file, bytes, sha256))
    });
    let (path, mut file, bytes, sha256) = match opened.await {
        Ok(Ok(opened)) => opened,
        Ok(Err(refused)) => return refused,
        Err(error) => return Reply::refused("failed", error.to_string()),
    };
    let mut done = offset;
    let outlet = call.outlet;
    loop {
        if outlet.progress(done, bytes, "bytes").await.is_err() {
            return Reply::refused("gone", "the client has left");
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; CHUNK_BYTES];
            let read = file.read(&mut buffer);
            read.map(|read| {
                buffer.truncate(read);
                (file, buffer)
            })
        });
        let (next, buffer) = match read.await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return Reply::refused("failed", error.to_string()),
            Err(error) => return Reply::refused("failed", error.to_string()),
        };
        file = next;
        if buffer.is_empty() {
            break;
        }
        done += buffer.len() as u64;
        if outlet.data(buffer).await.is_err() {
            return Reply::refused("gone", "the client has left");
        }
    }
    Reply::new("the backup is whole")
        .with("name", file_name(&path))
        .with("bytes", bytes)
        .with("sha256", sha256)
}
