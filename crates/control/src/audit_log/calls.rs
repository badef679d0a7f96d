//! Commands that are given to the node, from other machines or on its own, in the log.

use std::net::SocketAddr;

use sallyport_wire::audit_log::{AuthenticationOutcome, AuthenticationType, Event, What};
use tracing::error;

use super::log::{AuditLog, event, now_ms};
use super::quiet::{Like, Quiet};

/// Who gave a command, and what came of it.
#[derive(Clone, Debug)]
pub struct GivenCommand {
    /// From where; nothing on the node's own machine.
    pub peer: Option<SocketAddr>,
    /// Name of the key by which they proved themselves, or who they are.
    pub key_name: String,
    /// The key, as digits.
    pub key: Option<String>,
    /// The command, after where it came in: `appliance_cli/ping`, `node/want`.
    pub command: String,
    /// Its arguments, `name=value&…`, without secrets.
    pub arguments: String,
    /// 200, 400 or more if it was refused or failed, nothing if the client left before it was over.
    pub status: Option<u16>,
}

/// Records what the command line does.
#[derive(Clone)]
pub struct CommandLog {
    log: AuditLog,
    org_id: Option<String>,
    quiet: std::sync::Arc<std::sync::Mutex<Quiet>>,
}

impl std::fmt::Debug for CommandLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandLog").finish_non_exhaustive()
    }
}

impl CommandLog {
    pub(crate) fn new(log: AuditLog, org_id: Option<String>) -> CommandLog {
        CommandLog {
            log,
            org_id,
            quiet: std::sync::Arc::default(),
        }
    }

    /// Whether a command could be recorded now.
    ///
    /// # Errors
    /// Why not.
    pub async fn ready(&self) -> Result<(), String> {
        self.log.ready().await.map_err(|error| error.to_string())
    }

    /// Records a command, durably.
    ///
    /// # Errors
    /// Why it could not be.
    pub async fn given(&self, given: GivenCommand) -> Result<(), String> {
        let what = What::Access {
            request: given.command,
            query: given.arguments,
            act: "COMMAND".to_owned(),
            status: given.status,
        };
        let event = Event {
            src: given.peer.map(|peer| peer.ip()),
            org_id: self.org_id.clone(),
            principal_name: Some(given.key_name),
            actor_id: given.key,
            ..event(what)
        };
        let recorded = self.log.append(vec![event]).await;
        recorded.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Records that a client was sent away; many from one address become one record.
    pub async fn sent_away(&self, peer: SocketAddr, key: String, reason: String) {
        let repeated = {
            let mut quiet = self
                .quiet
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            quiet.admit(Like::failure(peer.ip()), now_ms())
        };
        let Some(repeated) = repeated else {
            return;
        };
        let what = What::Authentication {
            by: AuthenticationType::Certificate,
            outcome: AuthenticationOutcome::NotFound,
            request: "appliance_cli".to_owned(),
            reason: Some(reason),
            repeated,
        };
        let event = Event {
            src: Some(peer.ip()),
            org_id: self.org_id.clone(),
            actor_id: Some(key),
            ..event(what)
        };
        if let Err(error) = self.log.append(vec![event]).await {
            error!(%error, "a refused command line could not be recorded");
        }
    }
}
