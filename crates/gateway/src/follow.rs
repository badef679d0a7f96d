//! Following a control plane: what it sends is compiled, kept on disk, and put in force.

use std::sync::Arc;

use sallyport_model::declarative::{Format, parse};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::{Reconfigure, is_empty_config};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::balancer::Balancers;
use crate::conf::{ClusterMaterial, Conf};
use crate::config_sync::{
    Apply, ApplyError, ClientSettings, LinkState, NodeIdError, SettingsError, hostname, node_id,
    run,
};
use crate::configuration::{Configuration, Unservable};
use crate::enabled::Enabled;
use crate::last_known_good::{LastKnownGood, Saved};
use crate::proxy::Shared;

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
    tasks: JoinSet<()>,
    stop: CancellationToken,
    state: watch::Receiver<LinkState>,
}

impl Follower {
    /// Starts to follow. The configuration in force is what `shared` serves now.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub(crate) fn start(
        conf: &Conf,
        material: &ClusterMaterial,
        shared: &Arc<Shared>,
    ) -> Result<Follower, FollowError> {
        let node_id = node_id(&conf.prefix, conf.node_id)?;
        let hash = shared.configuration().hash;
        let settings = ClientSettings::new(conf, material, node_id, hostname(), hash)?;
        let applier = Arc::new(Applier {
            shared: shared.clone(),
            files: LastKnownGood::new(&conf.prefix),
            plugins: Enabled::new(conf),
        });
        let stop = CancellationToken::new();
        let (sender, state) = watch::channel(LinkState::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(run(settings, applier, sender, stop.clone()));
        Ok(Follower { tasks, stop, state })
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
    Configuration::empty(conf.router_flavor).keeping_all(!conf.admin_listen.is_empty())
}

/// What a gateway serves until its control plane says something else: the last configuration
/// that was in force, or nothing. What is wrong with the files is logged.
pub(crate) fn last_known_good(
    conf: &Conf,
    nothing: Configuration,
    balancers: &Balancers,
) -> Configuration {
    let loaded = match LastKnownGood::new(&conf.prefix).load() {
        Ok(None) => return nothing,
        Ok(Some(loaded)) => loaded,
        Err(error) => {
            error!(%error, "starting without a configuration");
            return nothing;
        }
    };
    if let Some(problem) = loaded.newest_problem {
        warn!(%problem, "the newest last-known-good configuration is unusable, taking the previous");
    }
    let hash = loaded.saved.hash;
    let plugins = Enabled::new(conf);
    match compile(loaded.saved.payload, hash, &plugins, (&nothing, balancers)) {
        Ok(configuration) => {
            info!(%hash, routes = configuration.routes(), "last-known-good configuration in force");
            configuration
        }
        Err(error) => {
            error!(%error, "the last-known-good configuration cannot be served by this build");
            nothing
        }
    }
}

struct Applier {
    shared: Arc<Shared>,
    files: LastKnownGood,
    plugins: Enabled,
}

impl Apply for Applier {
    async fn apply(&self, payload: Reconfigure) -> Result<ConfigHash, ApplyError> {
        let (files, plugins) = (self.files.clone(), self.plugins.clone());
        let before = self.shared.configuration();
        // compiling and waiting for the disk would hold up the link's own frames
        let balancers = self.shared.balancers.clone();
        let prepare = move || prepare(payload, &files, &plugins, (&before, &balancers));
        let made = tokio::task::spawn_blocking(prepare).await;
        let configuration = made.map_err(|panic| ApplyError(panic.to_string()))??;
        let hash = configuration.hash;
        let changed = configuration.work();
        info!(
            %hash,
            routes = configuration.routes(),
            compiled = changed.compiled,
            removed = changed.removed,
            "configuration in force"
        );
        self.shared.swap(configuration);
        Ok(hash)
    }
}

fn prepare(
    payload: Reconfigure,
    files: &LastKnownGood,
    plugins: &Enabled,
    (before, balancers): (&Configuration, &Balancers),
) -> Result<Configuration, ApplyError> {
    let hash = match is_empty_config(&payload.config_table) {
        true => ConfigHash::ZERO,
        false => payload.hash(),
    };
    let saved = Saved { hash, payload };
    let configuration = compile(saved.payload.clone(), hash, plugins, (before, balancers))?;
    if let Err(error) = files.store(&saved) {
        // serving it matters more than surviving a restart with it
        error!(%error, "the configuration in force will not survive a restart");
    }
    Ok(configuration)
}

fn compile(
    payload: Reconfigure,
    hash: ConfigHash,
    plugins: &Enabled,
    (before, balancers): (&Configuration, &Balancers),
) -> Result<Configuration, ApplyError> {
    let lines = |list: &mut dyn Iterator<Item = String>| list.collect::<Vec<_>>().join("; ");
    let declared = parse(payload.config_table, Format::Payload, plugins)
        .map_err(|bad| ApplyError(lines(&mut bad.iter().map(ToString::to_string))))?;
    for warning in &declared.warnings {
        warn!(%warning, "configuration of the control plane");
    }
    before
        .next_with(&declared, hash, balancers)
        .map_err(|bad| ApplyError(lines(&mut bad.iter().map(Unservable::to_string))))
}
