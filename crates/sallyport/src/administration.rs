//! The command line's listener on a node: what it is about, and where its calls are recorded.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use sallyport_appliance::appliance_cli::commands::{Site, all};
use sallyport_appliance::appliance_cli::{
    AllowedKeys, Called, Entry, Later, Recorder, Server, Settings,
};
use sallyport_appliance::backup::{Seal, Sources};
use sallyport_appliance::node::{GivenHere, RecordsHere};
use sallyport_control::{CommandLog, GivenCommand};
use sallyport_runtime::Tasks;
use sallyport_runtime::certs::{Curve, data_plane_pair};
use sallyport_runtime::tls::{CertDigest, Identity};

use crate::home;
use crate::logging::LogTail;

/// How long the certificate that clients know is valid: it has to outlast the node.
const DAYS: u32 = 36_500;

/// A node that takes commands.
pub(crate) struct Administration {
    /// Where it listens, and the setting behind that.
    pub(crate) listen: SocketAddr,
    pub(crate) listen_setting: &'static str,
    /// What the process was started as.
    pub(crate) role: &'static str,
    /// What is backed up.
    pub(crate) sources: Sources,
    /// Where backups go and for whom, if that is set.
    pub(crate) backups: Option<(PathBuf, Seal)>,
    /// Configuration files, for diagnostics.
    pub(crate) configuration: Vec<PathBuf>,
    pub(crate) logs: LogTail,
    /// Commands that only this kind of node has.
    pub(crate) more: Vec<Entry>,
}

/// Starts to listen; what runs is in `tasks`. `home` has the keys that may give commands.
pub(crate) fn start(
    it: Administration,
    home: &Path,
    log: CommandLog,
    tasks: &mut Tasks,
) -> anyhow::Result<Server> {
    home::pair(home, "appliance_cli", || {
        data_plane_pair("sallyport appliance_cli", Curve::P256, DAYS)
    })?;
    let (certificate, key) = (
        home.join("appliance_cli.crt"),
        home.join("appliance_cli.key"),
    );
    let identity = Identity::load(&certificate.to_string_lossy(), &key.to_string_lossy());
    let identity = identity
        .with_context(|| format!("{} and its key cannot be used", certificate.display()))?;
    let (backups, seal) = it.backups.unzip();
    let logs = it.logs;
    let site = Site {
        node: it.sources.node.clone(),
        role: it.role.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: Instant::now(),
        sources: it.sources,
        seal,
        backups,
        hosts: PathBuf::from("/etc/hosts"),
        configuration: it.configuration,
        logs: Arc::new(move |lines| logs.last(lines)),
    };
    let mut commands = all(site);
    commands.extend(it.more);
    let settings = Settings {
        listen: it.listen,
        listen_setting: it.listen_setting.to_owned(),
        identity,
        keys: AllowedKeys::of(home),
        commands,
        recorder: Arc::new(InAuditLog(log)),
    };
    Ok(Server::start(settings, tasks)?)
}

/// Records calls in the control plane's audit log.
pub(crate) struct InAuditLog(pub(crate) CommandLog);

impl Recorder for InAuditLog {
    fn ready(&self) -> Later<'_, Result<(), String>> {
        Box::pin(self.0.ready())
    }

    fn called(&self, called: Called) -> Later<'_, Result<(), String>> {
        Box::pin(
            self.0.given(GivenCommand {
                peer: Some(called.peer),
                key_name: called.key_name,
                key: Some(called.key.to_string()),
                command: format!("appliance_cli/{}", called.command),
                arguments: called.arguments,
                status: called
                    .outcome
                    .map(|outcome| if outcome.is_ok() { 200 } else { 400 }),
            }),
        )
    }

    fn refused(&self, peer: SocketAddr, key: CertDigest, reason: String) -> Later<'_, ()> {
        Box::pin(self.0.sent_away(peer, key.to_string(), reason))
    }
}

impl RecordsHere for InAuditLog {
    fn ready(&self) -> Later<'_, Result<(), String>> {
        Box::pin(self.0.ready())
    }

    fn given(&self, given: GivenHere) -> Later<'_, Result<(), String>> {
        Box::pin(self.0.given(GivenCommand {
            peer: None,
            key_name: given.by,
            key: None,
            command: format!("node/{}", given.command),
            arguments: given.arguments,
            status: Some(given.status),
        }))
    }
}
