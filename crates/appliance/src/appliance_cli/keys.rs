//! The keys that may give commands: one line each in a file of the data directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sallyport_runtime::tls::CertDigest;
use sallyport_store::CliKey;

/// How the line begins that a client prints and an administrator allows.
const PUBLIC: &str = "sallyport-cli-key";

/// A key that may give commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedKey {
    /// The SHA-256 of its certificate.
    pub digest: CertDigest,
    /// What it is called here.
    pub name: String,
}

/// Why the keys cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of the file is none.
    #[error("{}: line {line} is no key", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The text is none that a client prints.
    #[error("{0:?} is no public key; `sallyport keys show` prints it: {PUBLIC} DIGITS NAME")]
    Public(String),
    /// The name is taken by another key.
    #[error("the name {0:?} belongs to another key; give it another with --name")]
    NameTaken(String),
    /// There is no such key.
    #[error("no key is called {0:?}")]
    Unknown(String),
}

impl AllowedKey {
    /// Reads the line that a client prints.
    ///
    /// # Errors
    /// It is none, or its name has other than letters, digits, `.`, `_`, `@` and `-`.
    pub fn from_public(text: &str) -> Result<AllowedKey, KeysError> {
        let bad = || KeysError::Public(text.trim().chars().take(120).collect());
        let mut words = text.split_whitespace();
        let (Some(PUBLIC), Some(digest), Some(name), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad());
        };
        let digest = digest.parse().map_err(|_| bad())?;
        if !is_name(name) {
            return Err(bad());
        }
        Ok(AllowedKey {
            digest,
            name: name.to_owned(),
        })
    }

    /// The line that a client prints.
    pub fn public(&self) -> String {
        format!("{PUBLIC} {} {}", self.digest, self.name)
    }
}

/// Whether a key may be called so.
fn is_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-');
    !name.is_empty() && name.len() <= 64 && name.chars().all(known)
}

/// The file of allowed keys. It is read anew for each connection, so a key that is taken out is
/// out with the next one.
#[derive(Clone, Debug)]
pub struct AllowedKeys {
    path: PathBuf,
}

impl AllowedKeys {
    /// Those of a data directory: its file `cli_keys`, which need not be there.
    pub fn of(data: &Path) -> AllowedKeys {
        AllowedKeys {
            path: data.join("cli_keys"),
        }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Those of this node and of its cluster.
    ///
    /// # Errors
    /// As [`AllowedKeys::all`].
    pub fn everywhere(&self) -> Result<Vec<AllowedKey>, KeysError> {
        let mut all = self.all()?;
        for key in read(&self.shared())? {
            if !all.iter().any(|own| own.digest == key.digest) {
                all.push(key);
            }
        }
        Ok(all)
    }

    /// Keeps those that may give commands to every node of the cluster.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn share(&self, keys: &[AllowedKey]) -> Result<(), KeysError> {
        let path = self.shared();
        if keys.is_empty() && !path.exists() {
            return Ok(());
        }
        write(
            &path,
            "# Kept by the node: keys of the whole cluster, see `sallyport node keys`.\n",
            keys,
        )
    }

    fn shared(&self) -> PathBuf {
        self.path.with_extension("cluster")
    }

    /// Those of this node.
    ///
    /// # Errors
    /// The file cannot be read, or has a line that is none.
    pub fn all(&self) -> Result<Vec<AllowedKey>, KeysError> {
        read(&self.path)
    }

    /// Allows a key; one that is allowed already gets the new name.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn allow(&self, key: AllowedKey) -> Result<(), KeysError> {
        let mut all = self.all()?;
        all.retain(|other| other.digest != key.digest);
        if all.iter().any(|other| other.name == key.name) {
            return Err(KeysError::NameTaken(key.name));
        }
        all.push(key);
        self.write(&all)
    }

    /// Takes the key of this name out.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn revoke(&self, name: &str) -> Result<(), KeysError> {
        let mut all = self.all()?;
        let before = all.len();
        all.retain(|key| key.name != name);
        if all.len() == before {
            return Err(KeysError::Unknown(name.to_owned()));
        }
        self.write(&all)
    }

    fn write(&self, all: &[AllowedKey]) -> Result<(), KeysError> {
        let about = "# Keys that may give commands on port 10121, see `sallyport keys`.\n";
        write(&self.path, about, all)
    }
}

impl From<&CliKey> for AllowedKey {
    fn from(key: &CliKey) -> AllowedKey {
        AllowedKey {
            digest: CertDigest(key.digest),
            name: key.name.clone(),
        }
    }
}

/// The keys of a file, none if it is not there.
fn read(path: &Path) -> Result<Vec<AllowedKey>, KeysError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            return Err(KeysError::Io {
                doing: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    let lines = text.lines().zip(1..).filter(|(text, _)| {
        let text = text.trim();
        !text.is_empty() && !text.starts_with('#')
    });
    let key = |(text, line): (&str, usize)| {
        AllowedKey::from_public(text).map_err(|_| KeysError::Line {
            path: path.to_owned(),
            line,
        })
    };
    lines.map(key).collect()
}

/// Writes keys beside and renames.
fn write(path: &Path, about: &str, all: &[AllowedKey]) -> Result<(), KeysError> {
    let mut text = about.to_owned();
    for key in all {
        text.push_str(&key.public());
        text.push('\n');
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = || -> std::io::Result<()> {
        _ = fs::remove_file(&new); // of a run that was cut short
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|source| KeysError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8, name: &str) -> AllowedKey {
        AllowedKey {
            digest: CertDigest([byte; 32]),
            name: name.to_owned(),
        }
    }

    #[test]
    fn keys_are_allowed_renamed_and_taken_out() {
        let directory = tempfile::tempdir().unwrap();
        let keys = AllowedKeys::of(directory.path());
        assert_eq!(keys.all().unwrap(), []);
        keys.allow(key(1, "ann@laptop")).unwrap();
        keys.allow(key(2, "ben")).unwrap();
        let taken = keys.allow(key(3, "ben")).unwrap_err();
        assert!(matches!(taken, KeysError::NameTaken(_)), "{taken}");
        keys.allow(key(2, "ben2")).unwrap();
        assert_eq!(keys.all().unwrap(), [key(1, "ann@laptop"), key(2, "ben2")]);
        keys.revoke("ann@laptop").unwrap();
        assert!(matches!(
            keys.revoke("ann@laptop"),
            Err(KeysError::Unknown(_))
        ));
        assert_eq!(keys.all().unwrap(), [key(2, "ben2")]);
        fs::write(keys.path(), "# a\n\nrubbish\n").unwrap();
        assert!(matches!(keys.all(), Err(KeysError::Line { line: 3, .. })));
    }

    #[test]
    fn a_public_line_is_read_as_it_is_printed() {
        let line = key(7, "ann").public();
        assert_eq!(
            AllowedKey::from_public(&format!(" {line}\n")).unwrap(),
            key(7, "ann")
        );
        for bad in [
            "",
            "ssh-ed25519 AAAA ann",
            "sallyport-cli-key 07 ann",
            &line.replace(" ann", ""),
            &line.replace("ann", "ann smith"),
            &line.replace("ann", "a/b"),
        ] {
            let error = AllowedKey::from_public(bad).unwrap_err().to_string();
            assert!(error.contains("sallyport keys show"), "{error}");
        }
    }
}
