//! The section `backup` of a configuration.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Keep, KeyError, Schedule, Seal};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It is no TOML, or has a key that is none of it.
    #[error("{0}")]
    Text(String),
    /// For whom the backups are is wrong.
    #[error("backup: {0}")]
    Key(#[from] KeyError),
}

/// When, where to, for whom and for how long backups are made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the backups.
    pub to: PathBuf,
    /// When.
    pub schedule: Schedule,
    /// For whom.
    pub seal: Seal,
    /// For how long.
    pub keep: Keep,
    /// Further files with settings.
    pub include: Vec<PathBuf>,
}

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSettings {
    to: PathBuf,
    schedule: Schedule,
    #[serde(default)]
    recipients: Vec<String>,
    passphrase_file: Option<PathBuf>,
    #[serde(default)]
    keep: Keep,
    #[serde(default)]
    include: Vec<PathBuf>,
}

impl RawSettings {
    /// With paths that `place` has put where they belong, such as beside the file.
    #[must_use]
    pub fn beside(self, place: &impl Fn(PathBuf) -> PathBuf) -> RawSettings {
        RawSettings {
            to: place(self.to),
            passphrase_file: self.passphrase_file.map(place),
            include: self.include.into_iter().map(place).collect(),
            ..self
        }
    }
}

impl TryFrom<RawSettings> for Settings {
    type Error = SettingsError;

    fn try_from(raw: RawSettings) -> Result<Settings, SettingsError> {
        Ok(Settings {
            seal: Seal::new(&raw.recipients, raw.passphrase_file.as_deref())?,
            to: raw.to,
            schedule: raw.schedule,
            keep: raw.keep,
            include: raw.include,
        })
    }
}

impl Settings {
    /// Reads a file that has the one section `[backup]`.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn parse(text: &str) -> Result<Settings, SettingsError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            backup: RawSettings,
        }
        let file: File = toml::from_str(text).map_err(|it| SettingsError::Text(it.to_string()))?;
        file.backup.try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::NewKey;

    #[test]
    fn a_file_is_read_and_what_is_wrong_is_said() {
        let key = NewKey::generate(jiff::Timestamp::UNIX_EPOCH);
        let right = format!(
            "[backup]\nto = \"/b\"\nschedule = \"0 3 * * *\"\nrecipients = [\"{}\"]\n\
             keep = {{ last = 1 }}\n",
            key.recipient
        );
        let settings = Settings::parse(&right).unwrap();
        assert_eq!(settings.keep.last, 1);
        assert_eq!(settings.keep.daily, Keep::default().daily);
        let said = |text: &str| Settings::parse(text).unwrap_err().to_string();
        assert!(said(&right.replace("schedule", "shedule")).contains("shedule"));
        assert!(said(&right.replace("0 3", "0 33")).contains("is no schedule"));
        assert!(said(&right.replace("age1", "aga1")).contains("is no recipient"));
        assert!(said(&right.replace("last", "lst")).contains("lst"));
        assert!(said("[backup]\nto = \"/b\"\nschedule = \"0 3 * * *\"").contains("for whom"));
    }
}
