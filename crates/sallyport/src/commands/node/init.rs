//! `sallyport node init`: founds a cluster.

use std::path::Path;

use anyhow::{Context, bail};
use sallyport_appliance::node::{Founding, Identity, MemberFile, Settings, found};
use sallyport_store::{Actor, NodeRole, Roster, Store};

use super::plane::open_store;
use crate::home;

/// What a new node's file says.
const STARTER: &str = include_str!("starter.toml");

pub(super) fn run(file: &Path) -> anyhow::Result<()> {
    if !file.exists() {
        if let Some(parent) = file.parent().filter(|it| !it.as_os_str().is_empty()) {
            home::make_directory(parent)?;
        }
        home::write_private(file, &STARTER.replace("HOSTNAME", &super::hostname()))?;
        crate::commands::print(&format!("wrote {} with the defaults", file.display()))?;
    }
    let settings = super::settings(file)?;
    if settings.role != NodeRole::Data {
        bail!("the first node is a data node; a witness joins with a token");
    }
    let there = Identity::path(&settings.data);
    if there.exists() {
        bail!(
            "this machine is a node already ({}); to start anew, delete the directory {}",
            there.display(),
            settings.data.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(async {
        home::make_directory(&settings.data)?;
        let store = open_store(&settings).await?;
        let founded = founded(&settings, &store).await;
        store.close().await;
        let identity = founded?;
        let shared = match settings.database {
            Some(_) => "\nOther machines join with what `sallyport node token` prints.",
            None => "\nIts state is in a file, so it stays the only node (see [database] to change that).",
        };
        crate::commands::print(&format!(
            "cluster {} founded, {} is its first node.\nStart it: sallyport node run --config {}{shared}",
            identity.cluster,
            identity.name,
            file.display()
        ))
    })
}

/// Founds the cluster in the database. What was made waits in a file while that is not answered,
/// because an error may mean that it is done.
async fn founded(settings: &Settings, store: &Store) -> anyhow::Result<Identity> {
    let address = match settings.database {
        Some(_) => settings.advertised()?,
        None => settings.node_control.listen,
    };
    let Founding { identity, new } = found(&settings.name, &address.to_string())?;
    if let Some(there) = store.cluster().await? {
        bail!(
            "the database holds cluster {} already; join it with a token of one of its nodes \
             (`sallyport node token`)",
            there.id
        );
    }
    identity.store(&settings.data, "identity.pending")?;
    store
        .found_cluster(&Actor("node init".to_owned()), new)
        .await
        .context("could not found the cluster in the database")?;
    let roster = store.roster().await.unwrap_or_else(|_| Roster::default());
    MemberFile::of(&settings.data).store(&roster)?;
    let pending = settings.data.join("identity.pending");
    std::fs::rename(&pending, Identity::path(&settings.data))
        .with_context(|| format!("could not rename {}", pending.display()))?;
    Ok(identity)
}
