//! Following a control plane: what it sends is compiled, kept on disk, and put in force.

mod apply;
#[cfg(test)]
mod apply_tests;
mod edits;
#[cfg(test)]
mod edits_tests;
mod isolate;
mod kept;
#[cfg(test)]
mod kept_tests;
mod refusals;
mod restored;
mod source;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::balancer::Balancers;
use crate::conf::{ClusterMaterial, Conf};
use crate::config_sync::{
    ApplyError, ClientSettings, ClusterTls, LinkState, NodeIdError, SettingsError, hostname,
    node_id, run, warn_of_end,
};
use crate::configuration::Configuration;
use crate::enabled::Enabled;
use crate::last_known_good::LastKnownGood;
use crate::proxy::Shared;
use apply::Applier;
pub(crate) use apply::Stats;
pub(crate) use restored::{Start, StartSource};

/// Why a control plane cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The node has no identity.
    #[error(transparent)]
    NodeId(#[from] NodeIdError),
    /// The settings do not describe a data plane.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The link to a control plane, while it runs.
pub(crate) struct Follower {
    applier: Arc<Applier>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    state: watch::Receiver<LinkState>,
    stats: Arc<Stats>,
    tls: ClusterTls,
}

impl Follower {
    /// Starts to follow. The configuration in force is what `shared` serves now, and changes
    /// start from `source`.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub(crate) fn start(
        conf: &Conf,
        material: &ClusterMaterial,
        shared: &Arc<Shared>,
        source: StartSource,
    ) -> Result<Follower, FollowError> {
        let node_id = node_id(&conf.prefix, conf.node_id)?;
        let hash = shared.configuration().hash;
        let mut settings = ClientSettings::new(conf, material, node_id, hostname(), hash)?;
        settings.version = source.version();
        let files = LastKnownGood::new(&conf.prefix);
        let applier = Arc::new(Applier::new(shared, files, Enabled::new(conf), source));
        let (stats, tls) = (applier.stats.clone(), settings.tls.clone());
        let stop = CancellationToken::new();
        let (sender, state) = watch::channel(LinkState::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(run(
            settings,
            Arc::new(applier.clone()),
            sender,
            stop.clone(),
        ));
        Ok(Follower {
            applier,
            tasks,
            stop,
            state,
            stats,
            tls,
        })
    }

    /// Shows another certificate from the next connection on; the link stays as it is.
    pub(crate) fn exchange(&self, material: &ClusterMaterial) -> Result<(), FollowError> {
        warn_of_end(&material.identity);
        let exchanged = self.tls.exchange(material);
        exchanged.map_err(|error| SettingsError::Certificate(error).into())
    }

    /// Makes the configuration in force anew, for what its references stand for now. Blocks.
    ///
    /// # Errors
    /// A reference stands for nothing any more, or the files are gone; nothing changes then.
    pub(crate) fn renew(&self) -> Result<(), ApplyError> {
        self.applier.renew()
    }

    /// What came of following so far.
    pub(crate) fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// How the link is.
    pub(crate) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Closes the link.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "the link to the control plane panicked");
            }
        }
    }
}

/// What a gateway has before it has a configuration: nothing.
pub(crate) fn first(conf: &Conf) -> Configuration {
    Configuration::empty(conf.router_flavor)
        .keeping_all(!conf.admin_listen.is_empty())
        .with_vaults(conf.vaults.clone())
}

/// What a gateway serves until its control plane says something else: the last configuration
/// that was in force, or nothing. What is wrong with the files is logged.
pub(crate) fn last_known_good(conf: &Conf, nothing: Configuration, balancers: &Balancers) -> Start {
    let loaded = match LastKnownGood::new(&conf.prefix).load() {
        Ok(None) => return Start::with(nothing),
        Ok(Some(loaded)) => loaded,
        Err(error) => {
            error!(%error, "starting without a configuration");
            return Start::with(nothing);
        }
    };
    if let Some(problem) = &loaded.newest_problem {
        warn!(%problem, "the newest last-known-good configuration is unusable, taking the previous");
    }
    match restored::restored(loaded, &Enabled::new(conf), (&nothing, balancers)) {
        Ok(start) => {
            let (hash, routes) = (start.configuration.hash, start.configuration.routes());
            let version = start.version();
            info!(%hash, %version, routes, "last-known-good configuration in force");
            start
        }
        Err(error) => {
            error!(%error, "the last-known-good configuration cannot be served by this build");
            Start::with(nothing)
        }
    }
}
