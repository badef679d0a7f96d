//! Who can read a backup: holders of keys, or who knows a passphrase.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::secrecy::{ExposeSecret, SecretString};
use age::{DecryptError, Decryptor, Encryptor, IdentityFile, scrypt, x25519};

/// The most work that a passphrase may cost, as a power of two: some 30 s on a slow machine. More
/// would let a file keep its reader busy for days.
const WORK_MAX: u8 = 22;
/// Characters of a passphrase at least.
const PASSPHRASE_MIN: usize = 12;

/// Why a key cannot be used, or does not fit.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A recipient is none.
    #[error("{0:?} is no recipient; one begins with age1, and `sallyport backup key` makes it")]
    Recipient(String),
    /// Neither recipients nor a passphrase were given.
    #[error("for whom is the backup? Name recipients, or a file with a passphrase")]
    Nobody,
    /// A passphrase is too short.
    #[error("a passphrase has 12 characters or more")]
    Short,
    /// Recipients and a passphrase were given.
    #[error("a backup is for recipients or has a passphrase, not both")]
    Both,
    /// A file with a key or a passphrase cannot be used.
    #[error("{} cannot be used: {detail}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The key is not one of those that the backup is for.
    #[error("the key does not open this backup: it was written for other recipients")]
    WrongKey,
    /// A passphrase is not the one.
    #[error("the passphrase does not open this backup")]
    WrongPassphrase,
    /// A key was given, and a passphrase is wanted.
    #[error("this backup has a passphrase, not a key: give --passphrase-file")]
    WantsPassphrase,
    /// A passphrase was given, and a key is wanted.
    #[error("this backup is for a key, not a passphrase: give --identity")]
    WantsKey,
    /// The file is no backup.
    #[error("this is no backup: {0}")]
    NoBackup(String),
}

/// For whom backups are written.
#[derive(Clone)]
pub enum Seal {
    /// Holders of these keys; anyone may write for them.
    Recipients(Vec<x25519::Recipient>),
    /// Who knows a passphrase.
    Passphrase(SecretString),
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Seal::Recipients(all) => f.debug_tuple("Recipients").field(&all.len()).finish(),
            Seal::Passphrase(_) => f.write_str("Passphrase(***)"),
        }
    }
}

impl Seal {
    /// From recipients (`age1…`), or a file whose first line is a passphrase.
    ///
    /// # Errors
    /// A recipient or the file cannot be used, or not exactly one of the two is given.
    pub fn new(recipients: &[String], passphrase_file: Option<&Path>) -> Result<Seal, KeyError> {
        match (recipients, passphrase_file) {
            ([], None) => Err(KeyError::Nobody),
            ([], Some(path)) => Ok(Seal::Passphrase(passphrase(path)?)),
            (_, Some(_)) => Err(KeyError::Both),
            (all, None) => {
                let read = all.iter().map(|text| {
                    let read = x25519::Recipient::from_str(text.trim());
                    read.map_err(|_| KeyError::Recipient(text.clone()))
                });
                Ok(Seal::Recipients(read.collect::<Result<_, _>>()?))
            }
        }
    }

    /// With a passphrase.
    ///
    /// # Errors
    /// It has fewer than 12 characters.
    pub fn passphrase(passphrase: &str) -> Result<Seal, KeyError> {
        if passphrase.len() < PASSPHRASE_MIN {
            return Err(KeyError::Short);
        }
        Ok(Seal::Passphrase(SecretString::from(passphrase.to_owned())))
    }

    pub(super) fn encryptor(&self) -> Encryptor {
        match self {
            Seal::Passphrase(secret) => Encryptor::with_user_passphrase(secret.clone()),
            Seal::Recipients(all) => {
                Encryptor::with_recipients(all.iter().map(|it| it as &dyn age::Recipient))
                    .expect("there is a recipient, and all are of one kind")
            }
        }
    }
}

/// What opens backups.
pub enum Opener {
    /// Keys.
    Keys(Vec<Box<dyn age::Identity>>),
    /// A passphrase.
    Passphrase(SecretString),
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(***)")
    }
}

impl Opener {
    /// From a file with keys, as `sallyport backup key` and `age-keygen` write it, or one whose
    /// first line is a passphrase.
    ///
    /// # Errors
    /// The file cannot be used, or not exactly one of the two is given.
    pub fn new(keys: Option<&Path>, passphrase_file: Option<&Path>) -> Result<Opener, KeyError> {
        match (keys, passphrase_file) {
            (None, None) => Err(KeyError::Nobody),
            (Some(_), Some(_)) => Err(KeyError::Both),
            (None, Some(path)) => Ok(Opener::Passphrase(passphrase(path)?)),
            (Some(path), None) => {
                let bad = |detail: String| KeyError::File {
                    path: path.to_owned(),
                    detail,
                };
                let file = std::fs::File::open(path).map_err(|it| bad(it.to_string()))?;
                let keys = IdentityFile::from_buffer(BufReader::new(file.take(1 << 20)))
                    .map_err(|_| bad("there is no key in it (AGE-SECRET-KEY-1…)".to_owned()))?;
                let keys = keys.into_identities();
                let keys = keys.map_err(|error| bad(error.to_string()))?;
                if keys.is_empty() {
                    return Err(bad("there is no key in it (AGE-SECRET-KEY-1…)".to_owned()));
                }
                Ok(Opener::Keys(keys))
            }
        }
    }

    /// Opens what was sealed.
    pub(super) fn open<R: Read>(
        &self,
        input: R,
    ) -> Result<age::stream::StreamReader<R>, OpenFailure> {
        let decryptor = Decryptor::new(input)?;
        match (self, decryptor.is_scrypt()) {
            (Opener::Keys(_), true) => Err(KeyError::WantsPassphrase.into()),
            (Opener::Passphrase(_), false) => Err(KeyError::WantsKey.into()),
            (Opener::Keys(keys), false) => {
                Ok(decryptor.decrypt(keys.iter().map(|key| &**key as &dyn age::Identity))?)
            }
            (Opener::Passphrase(secret), true) => {
                let mut identity = scrypt::Identity::new(secret.clone());
                identity.set_max_work_factor(WORK_MAX);
                let opened = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity));
                opened.map_err(|error| match error {
                    DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed => {
                        KeyError::WrongPassphrase.into()
                    }
                    other => other.into(),
                })
            }
        }
    }
}

/// Why something could not be opened.
pub(super) enum OpenFailure {
    Key(KeyError),
    /// Cut short or changed in its head.
    Damaged(String),
    Io(std::io::Error),
}

impl From<KeyError> for OpenFailure {
    fn from(error: KeyError) -> OpenFailure {
        OpenFailure::Key(error)
    }
}

impl From<DecryptError> for OpenFailure {
    fn from(error: DecryptError) -> OpenFailure {
        match error {
            DecryptError::NoMatchingKeys => KeyError::WrongKey.into(),
            DecryptError::KeyDecryptionFailed => KeyError::WrongPassphrase.into(),
            DecryptError::DecryptionFailed | DecryptError::InvalidMac => {
                OpenFailure::Damaged("its head was changed after it was written".to_owned())
            }
            DecryptError::InvalidHeader => {
                KeyError::NoBackup("it is not in age's format".to_owned()).into()
            }
            DecryptError::UnknownFormat => KeyError::NoBackup(
                "it is in a version of age's format that this build does not know".to_owned(),
            )
            .into(),
            DecryptError::ExcessiveWork { .. } => KeyError::NoBackup(
                "its passphrase costs more work than any that is written here".to_owned(),
            )
            .into(),
            DecryptError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                OpenFailure::Damaged("it is cut short".to_owned())
            }
            DecryptError::Io(error) => OpenFailure::Io(error),
        }
    }
}

fn passphrase(path: &Path) -> Result<SecretString, KeyError> {
    let bad = |detail: String| KeyError::File {
        path: path.to_owned(),
        detail,
    };
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.len() < PASSPHRASE_MIN {
        return Err(bad(
            "its first line is to be a passphrase of 12 characters or more".to_owned(),
        ));
    }
    Ok(SecretString::from(line.to_owned()))
}

/// A key that was just made.
pub struct NewKey {
    /// For whom backups are written, `age1…`; not secret.
    pub recipient: String,
    /// The text of a key file, secret.
    pub file: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NewKey").field(&self.recipient).finish()
    }
}

impl NewKey {
    /// Makes a key; `now` is for the comment in the file.
    pub fn generate(now: jiff::Timestamp) -> NewKey {
        let key = x25519::Identity::generate();
        let recipient = key.to_public().to_string();
        let secret = key.to_string();
        NewKey {
            file: format!(
                "# created: {now:.0}\n# public key: {recipient}\n{}\n",
                secret.expose_secret()
            ),
            recipient,
        }
    }
}
