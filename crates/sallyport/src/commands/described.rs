//! Flags that say whose contract is meant and what the installation is, shared by several commands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use sallyport_contract::{Catalogue, ControlPlane, Filter, Installation, Role, lint, rows};

/// Stand-ins in comments, where nobody said the real names; `example` is nobody's domain.
const BASE: &str = "your-domain.example";
const PREFIX: &str = "your-prefix";

/// The stand-in for a base domain that nobody told.
pub(crate) fn placeholder_base() -> String {
    BASE.to_owned()
}

/// The stand-in for a control plane's prefix that nobody told.
pub(crate) fn placeholder_prefix() -> String {
    PREFIX.to_owned()
}

/// Whether a stand-in is part of `name`.
pub(crate) fn is_made_up(name: &str) -> bool {
    name.ends_with(BASE) || name.split('.').any(|label| label == PREFIX)
}

/// Whose contract, and which installation.
#[derive(Debug, clap::Args)]
pub(crate) struct Described {
    /// Whose contract: `own`, `hosted` (the hosted control plane), `appliance` (the original
    /// appliance), or a catalogue file
    #[arg(long, value_name = "NAME|FILE", default_value = "own")]
    pub(crate) catalogue: String,
    /// Description of the installation (TOML, see docs/network_contract.md)
    #[arg(long, value_name = "FILE")]
    installation: Option<PathBuf>,
    /// Base domain of the installation
    #[arg(long, value_name = "DOMAIN", conflicts_with = "installation")]
    base: Option<String>,
    /// DNS prefix of a control plane; may be repeated
    #[arg(long, value_name = "LABEL", conflicts_with = "installation")]
    prefix: Vec<String>,
    /// A feature in use, one of the catalogue's; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "installation")]
    feature: Vec<String>,
}

/// An installation, and whether its names are real.
pub(crate) struct Known {
    pub(crate) installation: Installation,
    /// Names that were made up; empty if a file or flags gave all of them.
    pub(crate) made_up: Vec<&'static str>,
}

impl Described {
    /// Whether a file describes the installation.
    pub(crate) fn has_installation(&self) -> bool {
        self.installation.is_some()
    }

    pub(crate) fn catalogue(&self) -> anyhow::Result<Catalogue> {
        catalogue(&self.catalogue)
    }

    /// The features that the file or the flags name; all of them known to `catalogue`.
    pub(crate) fn features(&self, catalogue: &Catalogue) -> anyhow::Result<BTreeSet<String>> {
        let named = match &self.installation {
            Some(path) => read_installation(path)?.features,
            None => self.feature.iter().cloned().collect(),
        };
        match named
            .iter()
            .find(|it| !catalogue.features.contains_key(*it))
        {
            None => Ok(named),
            Some(unknown) => {
                let known: Vec<&str> = catalogue.features.keys().map(String::as_str).collect();
                bail!(
                    "there is no feature {unknown:?}; there are: {}",
                    known.join(", ")
                )
            }
        }
    }

    /// The installation of the file, or a plain one of the flags: `role` and what it connects to, in
    /// `geo` or all geos.
    pub(crate) fn installation(
        &self,
        catalogue: &Catalogue,
        role: Option<Role>,
        geo: Option<&str>,
    ) -> anyhow::Result<Known> {
        if let Some(path) = &self.installation {
            let installation = read_installation(path)?;
            return Ok(Known {
                installation,
                made_up: Vec::new(),
            });
        }
        // Refuses a geo that the catalogue does not know, with the list of those that it does.
        rows(
            catalogue,
            &Filter {
                role: None,
                geo: geo.map(str::to_owned),
            },
        )?;
        let mut made_up = Vec::new();
        let base = self.base.clone().or_else(|| catalogue.base.clone());
        let base = base.unwrap_or_else(|| {
            made_up.push("base");
            BASE.to_owned()
        });
        let mut prefixes = self.prefix.clone();
        if prefixes.is_empty() {
            made_up.push("prefix");
            prefixes.push(PREFIX.to_owned());
        }
        let geos: Vec<String> = match geo {
            Some(geo) => vec![geo.to_ascii_lowercase()],
            None => catalogue.geos.clone(),
        };
        let planes = geos.iter().filter(|geo| *geo != "global").flat_map(|geo| {
            let one = |prefix: &String| ControlPlane {
                prefix: prefix.clone(),
                geo: geo.clone(),
            };
            prefixes.iter().map(one)
        });
        let mut roles = vec![Role::Gateway, Role::ControlPlane];
        let mut features: BTreeSet<String> = self.feature.iter().cloned().collect();
        match role {
            Some(Role::Appliance) => features.extend(["appliance".to_owned()]),
            Some(Role::IngressController) => features.extend(["kic".to_owned()]),
            Some(Role::MeshZone) => features.extend(["mesh_sync".to_owned()]),
            Some(Role::ForwardProxy) => features.extend(["forward_proxy".to_owned()]),
            _ => {}
        }
        features.retain(|it| catalogue.features.contains_key(it) || self.feature.contains(it));
        roles.extend(role.filter(|role| role.is_product()));
        if features.contains("appliance")
            || catalogue
                .entries
                .iter()
                .all(|it| of_appliance(&it.from, &it.to))
        {
            roles.push(Role::Appliance);
        }
        let installation = Installation {
            base: Some(base),
            roles,
            control_planes: planes.collect(),
            geos: geos.clone(),
            features,
            ..Installation::default()
        };
        Ok(Known {
            installation,
            made_up,
        })
    }
}

fn of_appliance(from: &[Role], to: &[Role]) -> bool {
    from.iter().chain(to).any(|role| *role == Role::Appliance)
}

/// The catalogue of a name or file.
pub(crate) fn catalogue(name: &str) -> anyhow::Result<Catalogue> {
    match name {
        "own" => Ok(sallyport_contract::catalogue().clone()),
        "hosted" => Ok(sallyport_contract::hosted_control_plane().clone()),
        "appliance" => Ok(sallyport_contract::original_appliance().clone()),
        file => catalogue_file(Path::new(file)),
    }
}

fn catalogue_file(path: &Path) -> anyhow::Result<Catalogue> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "could not read the catalogue {} (built in are: own, hosted, appliance)",
            path.display()
        )
    })?;
    let catalogue =
        Catalogue::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let findings = lint(&catalogue);
    if !findings.is_empty() {
        let lines: String = findings.iter().map(|it| format!("\n  {it}")).collect();
        bail!("the catalogue {} cannot be used:{lines}", path.display());
    }
    Ok(catalogue)
}

fn read_installation(path: &Path) -> anyhow::Result<Installation> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read the installation {}", path.display()))?;
    Installation::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// Reads `--role`.
pub(crate) fn role(text: &str) -> Result<Role, String> {
    Role::from_name(text).ok_or_else(|| {
        let all: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
        format!("no such role; there are: {}", all.join(", "))
    })
}

/// Writes a command's answer to standard output; a reader that has seen enough is not an error.
pub(crate) fn answer(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Says something beside the answer, on standard error.
pub(crate) fn remark(text: &str) {
    use std::io::Write;
    // If standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
