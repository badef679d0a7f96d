//! Sending records to destinations: at least once, in order, each at its own pace.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{StatusCode, Uri};
use sallyport_runtime::backoff;
use sallyport_runtime::tls::{ServerTrust, client_config};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::Audit;
use super::database::{Range, Stored};
use super::destinations::{self, Attempt, Destination, Replay, ReplayStatus};
use super::error::LogFailure;
use super::form::line;
use super::log::now_ms;
use super::settings::Form;
use crate::post::{Post, REQUEST_TIME_MAX, trusting};

/// Records of one request.
const RECORDS_MAX: usize = 500;
/// Pauses after failures grow up to this.
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);

/// What one task sends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Delivery {
    /// The log as it grows.
    Live(Destination),
    /// A part of it once more.
    Again(Destination, i64),
}

impl Delivery {
    /// Two deliveries of one key never run at a time.
    fn key(&self) -> (Uuid, bool) {
        match self {
            Delivery::Live(destination) => (destination.id, false),
            Delivery::Again(destination, _) => (destination.id, true),
        }
    }
}

/// Runs one task per enabled destination, and one for a replay; follows every change.
pub(super) async fn supervise(audit: Audit, stop: CancellationToken) {
    let mut changed = audit.changed();
    let mut running: HashMap<(Uuid, bool), (Delivery, CancellationToken)> = HashMap::new();
    let mut tasks: JoinSet<(Uuid, bool)> = JoinSet::new();
    loop {
        changed.mark_unchanged();
        let wanted = match wanted(&audit).await {
            Ok(wanted) => wanted,
            Err(LogFailure::Closed) => break,
            Err(error) => {
                error!(%error, "the destinations of the audit log cannot be read");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(PAUSE_MAX) => continue,
                }
            }
        };
        for (delivery, stop) in running.values() {
            if !wanted.contains(delivery) {
                stop.cancel();
            }
        }
        for delivery in wanted {
            // one that was changed starts again once its old task has ended
            if running.contains_key(&delivery.key()) {
                continue;
            }
            let own_stop = stop.child_token();
            running.insert(delivery.key(), (delivery.clone(), own_stop.clone()));
            let audit = audit.clone();
            tasks.spawn(async move {
                let key = delivery.key();
                tokio::select! {
                    () = own_stop.cancelled() => {}
                    () = deliver(&audit, delivery) => {}
                }
                key
            });
        }
        tokio::select! {
            () = stop.cancelled() => break,
            _ = changed.changed() => {}
            Some(ended) = tasks.join_next() => match ended {
                Ok(key) => _ = running.remove(&key),
                Err(error) => {
                    error!(%error, "a delivery of the audit log ended with a panic");
                    // nobody knows whose it was: all begin again where they stood
                    tasks.shutdown().await;
                    running.clear();
                }
            }
        }
    }
    tasks.shutdown().await;
}

async fn wanted(audit: &Audit) -> Result<Vec<Delivery>, LogFailure> {
    let found = audit.log.read(|conn| {
        let all = destinations::all(conn)?;
        let webhook = destinations::webhook(conn)?;
        Ok((all, webhook, destinations::replay(conn)?))
    });
    let (all, webhook, replay) = found.await?;
    let mut wanted = Vec::new();
    if let Some(replay) = replay.filter(|replay| !replay.status.is_over()) {
        match all.iter().find(|it| Some(it.id) == webhook) {
            Some(it) => wanted.push(Delivery::Again(it.clone(), replay.updated_at_ms)),
            None => finish_replay(audit, replay, ReplayStatus::Failed).await?,
        }
    }
    wanted.extend(all.into_iter().filter(|it| it.enabled).map(Delivery::Live));
    Ok(wanted)
}

async fn finish_replay(
    audit: &Audit,
    mut replay: Replay,
    status: ReplayStatus,
) -> Result<(), LogFailure> {
    replay.status = status;
    replay.updated_at_ms = now_ms();
    let stored = audit
        .log
        .write(move |tx| destinations::set_replay(tx, &replay));
    stored.await
}

async fn deliver(audit: &Audit, delivery: Delivery) {
    let ended = match delivery {
        Delivery::Live(destination) => live(audit, &destination).await,
        Delivery::Again(destination, _) => again(audit, &destination).await,
    };
    if let Err(error) = ended
        && error != LogFailure::Closed
    {
        error!(%error, "a delivery of the audit log cannot go on; it begins again in a while");
        sleep(PAUSE_MAX).await;
    }
}

/// Sends what is new, for ever.
async fn live(audit: &Audit, destination: &Destination) -> Result<(), LogFailure> {
    let name = destination.delivery();
    let own = name.clone();
    let stored = audit
        .log
        .read(move |conn| destinations::delivery(conn, &own));
    let (mut next, mut attempt) = stored.await?.unwrap_or((1, Attempt::default()));
    let mut head = audit.log.watch();
    let mut pace = Pace::default();
    loop {
        let page = Range::after(next.saturating_sub(1), pace.records_max());
        let page = audit.log.records(page).await?;
        let Some(last) = page.last().map(|record| record.seq) else {
            // an error means that the log is closed
            let newer = head.wait_for(|seq| *seq >= next).await;
            newer.map_err(|_| LogFailure::Closed)?;
            continue;
        };
        attempt = pace.send(audit, destination, &page, &attempt).await;
        if attempt.succeeded {
            next = last + 1;
        }
        let (own, noted) = (name.clone(), attempt.clone());
        let noted = audit
            .log
            .write(move |tx| destinations::set_delivery(tx, &own, next, &noted));
        if let Err(error) = noted.await {
            // the receiver may get these once more after a restart
            warn!(%error, "the place of an audit log delivery could not be noted");
        }
        pace.pause(&attempt).await;
    }
}

/// Sends a part of the log once more, then ends.
async fn again(audit: &Audit, destination: &Destination) -> Result<(), LogFailure> {
    let stored = audit.log.read(destinations::replay).await?;
    let Some(mut replay) = stored.filter(|replay| !replay.status.is_over()) else {
        return Ok(());
    };
    let mut pace = Pace::default();
    let mut attempt = Attempt::default();
    replay.status = ReplayStatus::Running;
    loop {
        let page = Range {
            before: None,
            from_ms: replay.start_ms,
            to_ms: replay.end_ms,
            ..Range::after(replay.done_seq, pace.records_max())
        };
        let mut page = audit.log.records(page).await?;
        page.retain(|record| record.seq <= replay.last_seq);
        let Some(last) = page.last().map(|record| record.seq) else {
            return finish_replay(audit, replay, ReplayStatus::Completed).await;
        };
        attempt = pace.send(audit, destination, &page, &attempt).await;
        if attempt.succeeded {
            replay.done_seq = last;
        }
        let noted = replay.clone();
        let noted = audit
            .log
            .write(move |tx| destinations::set_replay(tx, &noted));
        noted.await?;
        pace.pause(&attempt).await;
    }
}

/// How much and how often to send, by how it went.
#[derive(Default)]
struct Pace {
    failures: u32,
    /// Halvings of the page, as a receiver may refuse a large one.
    halved: u32,
}

impl Pace {
    fn records_max(&self) -> usize {
        (RECORDS_MAX >> self.halved).max(1)
    }

    async fn send(
        &mut self,
        audit: &Audit,
        destination: &Destination,
        page: &[Stored],
        before: &Attempt,
    ) -> Attempt {
        let sent = timeout(REQUEST_TIME_MAX, post(audit, destination, page)).await;
        let result = sent.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let (code, message, succeeded) = match result {
            Ok(status) => {
                let message = status.canonical_reason().unwrap_or_default().to_owned();
                (Some(status.as_u16()), message, status.is_success())
            }
            Err(message) => (None, message, false),
        };
        let name = &destination.name;
        if succeeded {
            if !before.succeeded && before.at_ms.is_some() {
                info!(
                    destination = name,
                    "the audit log's receiver takes records again"
                );
            }
            (self.failures, self.halved) = (0, 0);
        } else {
            if self.failures == 0 {
                warn!(
                    destination = name,
                    code, message, "the audit log's receiver takes no records"
                );
            }
            self.failures = self.failures.saturating_add(1);
            if code.is_some_and(|code| (400..500).contains(&code) && code != 429) {
                self.halved = (self.halved + 1).min(usize::BITS - 1);
            }
        }
        Attempt {
            at_ms: Some(now_ms()),
            code,
            message: Some(message),
            succeeded,
        }
    }

    async fn pause(&self, attempt: &Attempt) {
        if !attempt.succeeded {
            let mut dice = [0; 2];
            // without randomness the pause is the longest, which is as good
            _ = getrandom::fill(&mut dice);
            sleep(pause(self.failures, u16::from_le_bytes(dice))).await;
        }
    }
}

/// The pause after so many failures, by the dice.
pub(super) fn pause(failures: u32, dice: u16) -> Duration {
    backoff::pause(failures, dice, PAUSE_MAX)
}

/// One request with these records.
async fn post(
    audit: &Audit,
    destination: &Destination,
    page: &[Stored],
) -> Result<StatusCode, String> {
    let form = Form::from_name(&destination.log_format).unwrap_or_default();
    let mut text = String::new();
    for record in page {
        text.push_str(&line(form, &audit.host, audit.log.key(), record));
        text.push('\n');
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = gzip.write_all(text.as_bytes()).and_then(|()| gzip.finish());
    let body = packed.map_err(|error| error.to_string())?;
    let uri: Uri = destination
        .endpoint
        .parse()
        .map_err(|_| "the endpoint is not a URL".to_owned())?;
    let request = Post {
        id: "audit_log.webhook",
        uri: &uri,
        headers: &[("content-type", "text/plain"), ("content-encoding", "gzip")],
        authorization: &destination.authorization,
        body: body.into(),
    };
    let trusted = || match destination.skip_ssl_verification {
        true => client_config(ServerTrust::Anybody, None)
            .map(Arc::new)
            .map_err(|error| error.to_string()),
        false => trusting(&audit.webhook_ca),
    };
    let answer = crate::post::post(request, trusted).await?;
    Ok(answer.status)
}
