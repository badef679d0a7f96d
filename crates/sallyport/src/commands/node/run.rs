//! `sallyport node run`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use sallyport_appliance::node::Node;
use tracing::info;
use tracing::level_filters::LevelFilter;

use super::plane::ControlPlane;
use crate::logging;
use crate::shutdown::Shutdown;

pub(super) fn run(file: &Path, log: logging::LogArgs) -> anyhow::Result<()> {
    let settings = super::settings(file)?;
    let logs = logging::start_with_tail(LevelFilter::INFO, log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(async {
        let mut shutdown = Shutdown::listen();
        let plane = Arc::new(ControlPlane {
            settings: settings.clone(),
            logs,
        });
        let mut node = Node::start(settings, plane).await?;
        let fatal = tokio::select! {
            () = shutdown.requested() => None,
            fatal = node.failed() => Some(fatal),
        };
        info!("stopping");
        node.stop().await;
        match fatal {
            None => Ok(()),
            Some(fatal) => bail!("{fatal}"),
        }
    })
}
