//! Who a node is: a file in its data directory that nobody else may read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sallyport_runtime::tls;
use sallyport_store::{Member, NodeRole, Roster, Wanted};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::settings::Secret;

const FORMAT: u32 = 1;

/// What makes a machine a node of a cluster.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: Uuid,
    /// The node.
    pub id: Uuid,
    /// The node's name.
    pub name: String,
    /// What for.
    pub role: NodeRole,
    /// Certificate (PEM) of the cluster's authority of nodes.
    pub authority: String,
    /// The node's certificate (PEM).
    pub certificate: String,
    /// Its private key (PEM). It was made here and never left.
    pub key: Secret,
    /// What keys of the cluster are sealed with; empty for a witness.
    pub secret: Vec<u8>,
}

/// Why an identity cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or directory.
    #[error("could not use {path}")]
    File {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is in a file.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// This machine is no node yet.
    #[error(
        "this machine is no node of a cluster yet (there is no {path}); found one with \
         `sallyport node init`, or join one with `sallyport node join --token TOKEN`"
    )]
    Absent {
        /// Where the identity would be.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    format: u32,
    cluster: Uuid,
    id: Uuid,
    name: String,
    role: String,
    authority: String,
    certificate: String,
    key: String,
    secret: String,
}

impl Identity {
    /// Where it is, in a data directory.
    pub fn path(data: &Path) -> PathBuf {
        data.join("identity.json")
    }

    /// Reads it.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(data: &Path) -> Result<Identity, IdentityError> {
        let path = Identity::path(data);
        match read(&path)? {
            Some(text) => {
                Identity::parse(&text).map_err(|what| IdentityError::Damaged { path, what })
            }
            None => Err(IdentityError::Absent { path }),
        }
    }

    fn parse(text: &str) -> Result<Identity, String> {
        let raw: OnDisk = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if raw.format != FORMAT {
            return Err(format!("format {}, this build reads {FORMAT}", raw.format));
        }
        let role = raw.role.parse().map_err(|error| format!("role: {error}"))?;
        let secret = STANDARD.decode(&raw.secret);
        Ok(Identity {
            cluster: raw.cluster,
            id: raw.id,
            name: raw.name,
            role,
            authority: raw.authority,
            certificate: raw.certificate,
            key: Secret(raw.key),
            secret: secret.map_err(|error| format!("secret: {error}"))?,
        })
    }

    /// Writes it under `name` in a data directory; it is there whole or not at all.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn store(&self, data: &Path, name: &str) -> Result<(), IdentityError> {
        make_directory(data)?;
        let raw = OnDisk {
            format: FORMAT,
            cluster: self.cluster,
            id: self.id,
            name: self.name.clone(),
            role: self.role.to_string(),
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            key: self.key.0.clone(),
            secret: STANDARD.encode(&self.secret),
        };
        let text = serde_json::to_string_pretty(&raw).expect("plain values are always JSON");
        write(&data.join(name), &text)
    }

    /// Certificate and key for TLS; the chain has the authority too, for those who know only its
    /// digest.
    ///
    /// # Errors
    /// The two do not belong together.
    pub fn tls(&self) -> Result<tls::Identity, tls::identity::IdentityError> {
        let chain = format!("{}{}", self.certificate, self.authority);
        tls::Identity::from_pem(&chain, &self.key.0)
    }
}

/// The roster as a node last knew it, in a file: whom it may meet before it has asked anybody.
#[derive(Debug)]
pub struct MemberFile(PathBuf);

#[derive(Serialize, Deserialize)]
pub(crate) struct RawRoster {
    pub(crate) revision: u64,
    pub(crate) members: Vec<RawMember>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawMember {
    id: Uuid,
    name: String,
    role: String,
    address: String,
    wanted: String,
    wanted_at: u64,
    key: String,
    /// While the node changes its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    joined_at_ms: i64,
}

impl RawRoster {
    pub(crate) fn of(roster: &Roster) -> RawRoster {
        let one = |it: &Member| RawMember {
            id: it.id,
            name: it.name.clone(),
            role: it.role.to_string(),
            address: it.address.clone(),
            wanted: it.wanted.to_string(),
            wanted_at: it.wanted_at,
            key: STANDARD.encode(it.key_digest),
            next: (it.next_key != it.key_digest).then(|| STANDARD.encode(it.next_key)),
            joined_at_ms: it.joined_at_ms,
        };
        RawRoster {
            revision: roster.revision,
            members: roster.members.iter().map(one).collect(),
        }
    }

    /// Without the nodes that were removed, which are told of by their absence.
    pub(crate) fn of_members(roster: &Roster) -> RawRoster {
        let there = roster.members.iter();
        let there = there.filter(|it| it.wanted != Wanted::Removed).cloned();
        RawRoster::of(&Roster {
            revision: roster.revision,
            members: there.collect(),
        })
    }

    pub(crate) fn typed(self) -> Result<Roster, String> {
        let one = |it: RawMember| -> Result<Member, String> {
            let digest = |text: &str| {
                let key = STANDARD.decode(text).ok();
                let key = key.and_then(|key| <[u8; 32]>::try_from(key).ok());
                key.ok_or("a key digest has 32 bytes")
            };
            let key_digest = digest(&it.key)?;
            Ok(Member {
                next_key: match &it.next {
                    Some(next) => digest(next)?,
                    None => key_digest,
                },
                key_digest,
                id: it.id,
                role: it.role.parse::<NodeRole>().map_err(|e| e.to_string())?,
                wanted: it.wanted.parse::<Wanted>().map_err(|e| e.to_string())?,
                name: it.name,
                address: it.address,
                wanted_at: it.wanted_at,
                joined_at_ms: it.joined_at_ms,
            })
        };
        Ok(Roster {
            revision: self.revision,
            members: self
                .members
                .into_iter()
                .map(one)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl MemberFile {
    /// That of a data directory.
    pub fn of(data: &Path) -> MemberFile {
        MemberFile(data.join("roster.json"))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// What was stored last; an empty roster if nothing was.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load(&self) -> Result<Roster, IdentityError> {
        let Some(text) = read(&self.0)? else {
            return Ok(Roster::default());
        };
        let raw = serde_json::from_str::<RawRoster>(&text).map_err(|error| error.to_string());
        raw.and_then(RawRoster::typed)
            .map_err(|what| IdentityError::Damaged {
                path: self.0.clone(),
                what,
            })
    }

    /// Keeps a roster for the next start.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn store(&self, roster: &Roster) -> Result<(), IdentityError> {
        let raw = RawRoster::of(roster);
        write(
            &self.0,
            &serde_json::to_string_pretty(&raw).expect("plain values are always JSON"),
        )
    }
}

/// Makes a directory that only its owner may enter.
pub(crate) fn make_directory(path: &Path) -> Result<(), IdentityError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| IdentityError::File {
            path: path.to_owned(),
            source,
        })
}

pub(crate) fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes beside and renames, so that a crash leaves the old file or the new one.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), IdentityError> {
    let new = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        _ = fs::remove_file(&new); // of a start that was cut short
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|source| IdentityError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/er");
        let absent = Identity::load(&data).unwrap_err().to_string();
        assert!(absent.contains("sallyport node init"), "{absent}");
        let identity = Identity {
            cluster: Uuid::from_u128(1),
            id: Uuid::from_u128(2),
            name: "n1".to_owned(),
            role: NodeRole::Witness,
            authority: "a".to_owned(),
            certificate: "c".to_owned(),
            key: Secret("hidden".to_owned()),
            secret: vec![1, 2, 3],
        };
        identity.store(&data, "identity.json").unwrap();
        let read = Identity::load(&data).unwrap();
        assert_eq!(format!("{read:?}"), format!("{identity:?}"));
        assert_eq!(read.key, identity.key);
        assert!(!format!("{read:?}").contains("hidden"));
        let mode =
            std::os::unix::fs::MetadataExt::mode(&fs::metadata(Identity::path(&data)).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        fs::write(Identity::path(&data), "{\"format\": 1}").unwrap();
        let damaged = Identity::load(&data).unwrap_err().to_string();
        assert!(damaged.contains("identity.json is damaged"), "{damaged}");
    }

    #[test]
    fn a_roster_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = MemberFile::of(dir.path());
        assert_eq!(file.load().unwrap(), Roster::default());
        let member = Member {
            id: Uuid::from_u128(2),
            name: "n1".to_owned(),
            role: NodeRole::Data,
            address: "192.0.2.1:7777".to_owned(),
            wanted: Wanted::Cordoned,
            wanted_at: 4,
            key_digest: [7; 32],
            next_key: [8; 32],
            joined_at_ms: 5,
        };
        let roster = Roster {
            revision: 9,
            members: vec![member],
        };
        file.store(&roster).unwrap();
        assert_eq!(file.load().unwrap(), roster);
    }
}
