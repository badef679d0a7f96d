//! `sallyport keys`: who may give commands to which node.

use std::path::PathBuf;

use anyhow::{Context, bail};
use sallyport_appliance::appliance_cli::{AllowedKey, AllowedKeys};
use sallyport_runtime::certs::{Curve, data_plane_pair};
use sallyport_runtime::tls::{certificates, leaf_digest};

use crate::home;

/// How long a key's certificate is valid; a key is ended by `sallyport keys revoke`.
const DAYS: u32 = 36_500;

/// Keys by which people administer nodes from other machines (see docs/appliance_cli.md).
///
/// On your machine: `sallyport keys create`, which prints a line. On the node: `sallyport keys allow`
/// with that line. Then: `sallyport --target NODE status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes your key and prints its public line
    Create {
        #[command(flatten)]
        own: Own,
        /// What the key is called [default: user@machine]
        #[arg(long)]
        name: Option<String>,
    },
    /// Prints the public line of your key
    Show {
        #[command(flatten)]
        own: Own,
    },
    /// Deletes your key; nodes that allow it keep its line until it is revoked there
    Delete {
        #[command(flatten)]
        own: Own,
    },
    /// On a node: lets a key give commands
    Allow {
        /// The public line, in quotes
        public: String,
        /// Another name for it on this node
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        node: Node,
    },
    /// On a node: lists the keys that may give commands, and what clients know the node by
    Allowed {
        #[command(flatten)]
        node: Node,
    },
    /// On a node: takes a key out, from its next connection on
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        node: Node,
    },
}

/// Where your key is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Own {
    /// Directory of your key and of the nodes you know [default: ~/.config/sallyport]
    #[arg(long, value_name = "DIR", env = "SALLYPORT_KEYS")]
    keys: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true)]
    home: Option<PathBuf>,
}

impl Own {
    /// The directory.
    pub(crate) fn directory(&self) -> anyhow::Result<PathBuf> {
        let given = self.keys.clone();
        let home = self
            .home
            .as_ref()
            .map(|home| home.join(".config/sallyport"));
        given
            .or(home)
            .context("where are your keys? Neither --keys nor HOME says it")
    }
}

#[derive(Debug, clap::Args)]
struct Node {
    /// Data directory of the control plane on the node
    #[arg(
        long,
        value_name = "DIR",
        default_value = "sallyport-data/control",
        env = "SALLYPORT_CONTROL_DATA"
    )]
    data: PathBuf,
}

impl Node {
    fn keys(&self) -> anyhow::Result<AllowedKeys> {
        if !self.data.is_dir() {
            bail!(
                "{} is no data directory; --data names it",
                self.data.display()
            );
        }
        Ok(AllowedKeys::of(&self.data))
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Create { own, name } => {
            let directory = own.directory()?;
            home::make_directory(&directory)?;
            if directory.join("cli.key").exists() {
                bail!(
                    "there is a key in {} already; `sallyport keys show` prints its public line",
                    directory.display()
                );
            }
            let name = name.unwrap_or_else(user_at_machine);
            let pair = home::pair(&directory, "cli", || {
                data_plane_pair(&name, Curve::P256, DAYS)
            })?;
            home::write_public(&directory.join("cli.name"), &name)?;
            super::print(&public(&pair.cert, &name)?.public())
        }
        Command::Show { own } => super::print(&own_key(&own)?.public()),
        Command::Delete { own } => {
            let directory = own.directory()?;
            let key = own_key(&own)?;
            for file in ["cli.key", "cli.crt", "cli.name"] {
                let path = directory.join(file);
                if path.exists() {
                    std::fs::remove_file(&path)
                        .with_context(|| format!("could not remove {}", path.display()))?;
                }
            }
            super::print(&format!(
                "{} is deleted; on nodes: sallyport keys revoke {}",
                key.digest, key.name
            ))
        }
        Command::Allow { public, name, node } => {
            let mut key = AllowedKey::from_public(&public)?;
            if let Some(name) = name {
                key = AllowedKey::from_public(&format!("sallyport-cli-key {} {name}", key.digest))?;
            }
            node.keys()?.allow(key.clone())?;
            super::print(&format!("{} may give commands to this node", key.name))
        }
        Command::Allowed { node } => {
            let all = node.keys()?.all()?;
            let lines: Vec<String> = all.iter().map(AllowedKey::public).collect();
            super::print(&match lines.is_empty() {
                true => "no key may give commands".to_owned(),
                false => lines.join("\n"),
            })?;
            if let Some(pem) = home::read_optional(&node.data.join("appliance_cli.crt"))? {
                let digest = digest_of(&pem).context("appliance_cli.crt is damaged")?;
                super::print(&format!(
                    "\nclients know this node by --fingerprint {digest}"
                ))?;
            }
            Ok(())
        }
        Command::Revoke { name, node } => {
            node.keys()?.revoke(&name)?;
            super::print(&format!("{name} may not give commands any more"))
        }
    }
}

/// Your key's public line.
pub(crate) fn own_key(own: &Own) -> anyhow::Result<AllowedKey> {
    let directory = own.directory()?;
    let pem = home::read_optional(&directory.join("cli.crt"))?;
    let pem = pem.with_context(|| {
        format!(
            "there is no key in {}; `sallyport keys create` makes one",
            directory.display()
        )
    })?;
    let name = home::read_optional(&directory.join("cli.name"))?;
    public(&pem, name.unwrap_or_else(user_at_machine).trim())
}

fn public(pem: &str, name: &str) -> anyhow::Result<AllowedKey> {
    let digest = digest_of(pem).context("cli.crt is damaged")?;
    Ok(AllowedKey::from_public(&format!(
        "sallyport-cli-key {digest} {name}"
    ))?)
}

fn digest_of(pem: &str) -> anyhow::Result<String> {
    let chain = certificates(pem)?;
    let leaf = chain.first().context("it holds no certificate")?;
    Ok(leaf_digest(leaf).to_string())
}

fn user_at_machine() -> String {
    let known = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let machine: String = super::backup::host_name()
        .chars()
        .filter(known)
        .take(50)
        .collect();
    format!("admin@{machine}")
}
