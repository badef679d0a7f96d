//! May this data plane get this configuration? Kong's rules about versions and plugins.

use std::fmt;
use std::str::FromStr;

use super::PluginVersion;

/// The first three numbers of a version; anything after them (`-enterprise`, a fourth number)
/// is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KongVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number; takes no part in any check.
    pub patch: u32,
}

impl KongVersion {
    /// Makes a version of its numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> KongVersion {
        KongVersion {
            major,
            minor,
            patch,
        }
    }
}

impl FromStr for KongVersion {
    type Err = VersionProblem;

    fn from_str(text: &str) -> Result<KongVersion, VersionProblem> {
        let mut numbers = text.splitn(3, '.').map(|part| {
            let digits = part
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(part.len());
            (part[..digits].parse::<u32>().ok(), digits == part.len())
        });
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some((Some(major), true)), Some((Some(minor), true)), Some((Some(patch), _))) => {
                Ok(KongVersion {
                    major,
                    minor,
                    patch,
                })
            }
            _ => Err(VersionProblem::Unreadable {
                version: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for KongVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why a data plane's version is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionProblem {
    /// Not `major.minor.patch`.
    #[error("{version:?} is not a version of the form major.minor.patch")]
    Unreadable {
        /// The text.
        version: String,
    },
    /// The major versions differ.
    #[error("data plane {node} and control plane {control_plane} differ in the major version")]
    Major {
        /// The data plane's version.
        node: KongVersion,
        /// The version the control plane speaks for.
        control_plane: KongVersion,
    },
    /// The data plane is newer.
    #[error("data plane {node} is newer than control plane {control_plane}: upgrade the latter")]
    NodeNewer {
        /// The data plane's version.
        node: KongVersion,
        /// The version the control plane speaks for.
        control_plane: KongVersion,
    },
}

/// Checks the version a data plane gave in its query: equal majors, minor not above the
/// control plane's, patch ignored.
///
/// # Errors
/// The link is to be closed and the node marked [`SyncStatus::KongVersionIncompatible`].
pub fn check_version(
    control_plane: KongVersion,
    node: &str,
) -> Result<KongVersion, VersionProblem> {
    let node: KongVersion = node.parse()?;
    if node.major != control_plane.major {
        Err(VersionProblem::Major {
            node,
            control_plane,
        })
    } else if node.minor > control_plane.minor {
        Err(VersionProblem::NodeNewer {
            node,
            control_plane,
        })
    } else {
        Ok(node)
    }
}

/// Why a configuration is withheld from a data plane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginProblem {
    /// The node does not have the plugin.
    #[error("plugin {name:?} is configured, but the data plane does not have it")]
    Missing {
        /// Name of the plugin.
        name: String,
    },
    /// The node has an unsuitable version of it.
    #[error(
        "plugin {name:?} is version {control_plane} here and {node:?} on the data plane, which \
         must have the same major and no newer minor version"
    )]
    Version {
        /// Name of the plugin.
        name: String,
        /// Version of the control plane.
        control_plane: String,
        /// Version of the node; empty if it did not say.
        node: String,
    },
}

impl PluginProblem {
    /// The status that the control plane stores for the node.
    pub fn sync_status(&self) -> SyncStatus {
        match self {
            PluginProblem::Missing { .. } => SyncStatus::PluginSetIncompatible,
            PluginProblem::Version { .. } => SyncStatus::PluginVersionIncompatible,
        }
    }
}

/// Checks the plugins a configuration uses (`configured`, with the control plane's versions)
/// against those a data plane has.
///
/// Returns every problem in the order of `configured`; none means that it may be sent. A
/// version the control plane itself cannot read is not compared. As in Kong, data planes with
/// `opentelemetry` 0.1 are tolerated.
pub fn check_plugins(
    configured: &[PluginVersion],
    on_node: &[PluginVersion],
) -> Vec<PluginProblem> {
    let check = |plugin: &PluginVersion| {
        let Some(node) = on_node.iter().find(|node| node.name == plugin.name) else {
            return Some(PluginProblem::Missing {
                name: plugin.name.clone(),
            });
        };
        let wanted: KongVersion = plugin.version.parse().ok()?;
        let suits = node.version.parse::<KongVersion>().is_ok_and(|has| {
            has.major == wanted.major && has.minor <= wanted.minor
                || plugin.name == "opentelemetry" && (has.major, has.minor) == (0, 1)
        });
        (!suits).then(|| PluginProblem::Version {
            name: plugin.name.clone(),
            control_plane: plugin.version.clone(),
            node: node.version.clone(),
        })
    };
    configured.iter().filter_map(check).collect()
}

/// How a data plane stands to its control plane, in the words Kong stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SyncStatus {
    /// Nothing known yet.
    #[default]
    Unknown,
    /// Gets configurations.
    Normal,
    /// [`check_version`] failed; the link was closed.
    KongVersionIncompatible,
    /// A configured plugin is missing on the node; configurations are withheld.
    PluginSetIncompatible,
    /// A configured plugin has an unsuitable version; configurations are withheld.
    PluginVersionIncompatible,
    /// A configured WebAssembly filter is missing on the node.
    FilterSetIncompatible,
}

impl SyncStatus {
    /// Every status.
    pub const ALL: [SyncStatus; 6] = [
        SyncStatus::Unknown,
        SyncStatus::Normal,
        SyncStatus::KongVersionIncompatible,
        SyncStatus::PluginSetIncompatible,
        SyncStatus::PluginVersionIncompatible,
        SyncStatus::FilterSetIncompatible,
    ];

    /// The word in `sync_status` of `clustering_data_planes`.
    pub fn as_str(self) -> &'static str {
        match self {
            SyncStatus::Unknown => "unknown",
            SyncStatus::Normal => "normal",
            SyncStatus::KongVersionIncompatible => "kong_version_incompatible",
            SyncStatus::PluginSetIncompatible => "plugin_set_incompatible",
            SyncStatus::PluginVersionIncompatible => "plugin_version_incompatible",
            SyncStatus::FilterSetIncompatible => "filter_set_incompatible",
        }
    }
}

impl fmt::Display for SyncStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
