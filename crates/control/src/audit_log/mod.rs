//! `audit_log`: who did what, from where, with which result. Append-only, chained, signed.
//!
//! [`Recorder`] writes what happens at the APIs and at the data planes' door into [`AuditLog`]; the
//! records are pulled (`api`), sent to webhooks (`webhook`) and to syslog collectors (`forward`), and
//! others' records are received on port 8071 (`receive`). docs/audit_log.md has formats and promises.

mod api;
mod calls;
mod database;
mod destinations;
mod error;
mod export;
mod form;
mod forward;
mod key;
mod log;
mod quiet;
mod receive;
mod record;
mod redact;
mod settings;
#[cfg(test)]
mod tests;
mod trace;
mod webhook;
mod webhook_api;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRef;
use sallyport_runtime::tls::Identity;
use sallyport_runtime::{ListenError, Tasks};
use tokio::sync::watch;
use tracing::error;
use uuid::Uuid;

pub use calls::{CommandLog, GivenCommand};
pub use error::AuditLogError;
pub use export::{ExportError, export, public_key, verify_data, verify_export, verify_signature};
pub use settings::AuditLogSettings;

pub(crate) use log::AuditLog;
pub(crate) use record::{Caller, Peer, Recorder, record};
pub(crate) use redact::path as shown_path;
pub(crate) use trace::current as trace_id;

use crate::app::App;
use crate::route::Route;

/// The log and what belongs to it; clones are handles to the same.
#[derive(Clone)]
pub(crate) struct Audit {
    pub(crate) log: AuditLog,
    pub(crate) recorder: Recorder,
    /// The installation's domain, as CEF and syslog name the sender.
    host: Arc<str>,
    /// Whose certificates webhooks may have.
    webhook_ca: Arc<[String]>,
    /// Told when destinations or replays change.
    changed: Arc<watch::Sender<()>>,
}

impl FromRef<App> for Audit {
    fn from_ref(app: &App) -> Audit {
        app.audit.clone()
    }
}

impl Audit {
    fn tell_changed(&self) {
        self.changed.send_replace(());
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// Every path of the log.
pub(crate) fn routes() -> Vec<Route> {
    let mut all = api::routes();
    all.extend(webhook_api::routes());
    all
}

/// The log, open, and its sockets, bound; nothing runs yet.
pub(crate) struct Opened {
    log: AuditLog,
    sockets: Option<receive::Sockets>,
    settings: AuditLogSettings,
}

/// Why the log does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Log(#[from] AuditLogError),
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Opens the log and binds its port.
pub(crate) fn open(settings: AuditLogSettings, identity: &Identity) -> Result<Opened, OpenError> {
    let log = AuditLog::open(&settings.directory)?;
    let sockets = match settings.receive.clone() {
        None => None,
        Some(receive) => {
            let opened = receive::Sockets::open(receive, identity);
            Some(opened.map_err(|error| match error {
                receive::OpenError::Listen(error) => OpenError::Listen(error),
                receive::OpenError::Settings(error) => OpenError::Log(error),
            })?)
        }
    };
    Ok(Opened {
        log,
        sockets,
        settings,
    })
}

impl Opened {
    /// The address of port 8071, if it is open.
    pub(crate) fn receive_addr(&self) -> Option<SocketAddr> {
        self.sockets.as_ref().and_then(receive::Sockets::addr)
    }

    /// Starts everything that runs beside the APIs.
    pub(crate) async fn start(self, tasks: &mut Tasks, host: &str, org_id: Option<Uuid>) -> Audit {
        let audit = Audit {
            recorder: Recorder::new(self.log.clone(), org_id),
            log: self.log,
            host: host.into(),
            webhook_ca: self.settings.webhook_ca.into(),
            changed: Arc::new(watch::channel(()).0),
        };
        let key = audit.log.key().jwks();
        let x = key["keys"][0]["x"].as_str().unwrap_or_default();
        let started = log::own("Log.Started", 0, format!("records are signed with {x}"));
        if let Err(error) = audit.log.append(vec![started]).await {
            // reads go on, changes are refused until it can be written
            error!(%error, "the control plane starts without a writable audit log");
        }
        let own = audit.clone();
        tasks.spawn("audit_log.webhook", |stop| webhook::supervise(own, stop));
        for to in self.settings.forward {
            let own = audit.clone();
            tasks.spawn("audit_log.forward", |stop| forward::forward(own, to, stop));
        }
        let own = audit.recorder.clone();
        tasks.spawn("audit_log.counted", |stop| own.tell_counted(stop));
        if let Some(sockets) = self.sockets {
            sockets.serve(audit.clone(), tasks);
        }
        audit
    }
}

impl Audit {
    /// Says in the log that it ends here, and closes it.
    pub(crate) async fn end(&self) {
        let ended = log::own("Log.Stopped", 0, "the control plane stopped");
        if let Err(error) = self.log.append(vec![ended]).await {
            error!(%error, "the end of the audit log could not be recorded");
        }
        self.log.close().await;
    }
}
