//! Puts in force what a control plane sends: compiled, kept on disk, swapped in.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sallyport_model::Kind;
use sallyport_model::declarative::{Format, parse};
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{Deltas, Refused, Report, SyncVersion};
use sallyport_wire::config_sync::{Reconfigure, is_empty_config};
use serde_json::Value;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::edits::{Before, edited};
use super::isolate::{Isolated, Objection, isolate, lines};
use super::kept::{Disk, Settled, State};
use super::refusals::Rejected;
use super::restored::StartSource;
use super::source::Source;
use crate::balancer::Balancers;
use crate::closed::Closed;
use crate::config_sync::{Applied, Apply, ApplyError, Synced};
use crate::configuration::Configuration;
use crate::enabled::Enabled;
use crate::last_known_good::changes::Record;
use crate::last_known_good::{LastKnownGood, Saved};
use crate::proxy::Shared;
use crate::router::Work;

/// What the Status API tells about following a control plane.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Whole configurations asked for because what was there did not have the hash it should.
    pub(crate) resyncs: AtomicU64,
    /// Sets of changes that took making everything anew.
    pub(crate) rebuilds: AtomicU64,
    /// Configurations and sets of changes put in force.
    pub(crate) applied: AtomicU64,
    /// Entities of the newest configuration that are not served as published.
    pub(crate) refused: AtomicU64,
}

/// Puts configurations in force, one after the other.
pub(super) struct Applier {
    pub(super) shared: Arc<Shared>,
    pub(super) plugins: Enabled,
    pub(super) stats: Arc<Stats>,
    files: LastKnownGood,
    /// Always locked before the state, if both are.
    disk: Mutex<Disk>,
    state: Mutex<State>,
}

impl Applier {
    pub(super) fn new(
        shared: &Arc<Shared>,
        files: LastKnownGood,
        plugins: Enabled,
        source: StartSource,
    ) -> Applier {
        let stats = Arc::new(Stats::default());
        let refused = source.0.as_ref().map_or(0, |source| source.refused().len());
        stats.refused.store(refused as u64, Ordering::Relaxed);
        Applier {
            shared: shared.clone(),
            plugins,
            stats,
            files: files.clone(),
            disk: Mutex::new(Disk::new(files)),
            state: Mutex::new(State::new(source.0)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in force, and says so in the log.
    fn swap(&self, configuration: Configuration, told: &[Refused], refused: usize) {
        let Work {
            compiled, removed, ..
        } = configuration.work();
        let (hash, routes) = (configuration.hash, configuration.routes());
        info!(%hash, routes, compiled, removed, "configuration in force");
        self.swap_quietly(configuration, told, refused);
    }

    /// Puts in force. Of all that is refused, `told` is named in the log: what was not before.
    fn swap_quietly(&self, configuration: Configuration, told: &[Refused], refused: usize) {
        for Refused {
            entity_type,
            entity_id,
            entity_name,
            field,
            message,
            kept,
            closed,
        } in told.iter().take(REFUSED_LOGGED_MAX)
        {
            warn!(
                entity_type,
                entity_id,
                entity_name,
                field,
                reason = message,
                kept,
                closed,
                "entity refused, the others are in force"
            );
        }
        self.shared.swap(configuration);
        self.stats.applied.fetch_add(1, Ordering::Relaxed);
        self.stats.refused.store(refused as u64, Ordering::Relaxed);
    }

    /// A whole configuration, as it comes over protocol v1.
    fn whole(&self, payload: Reconfigure) -> Result<Applied, ApplyError> {
        let mut disk = self.disk();
        let mut state = self.state();
        let current = self.shared.configuration();
        let before = (&*current, &*self.shared.balancers);
        let empty = is_empty_config(&payload.config_table);
        let hash = match empty {
            true => ConfigHash::ZERO,
            false => payload.hash(),
        };
        let stored = std::cell::OnceCell::new();
        let kept = |kind: Kind, id: Uuid| {
            if let Some(source) = &state.source {
                return source.served_value(kind, id);
            }
            let table = stored.get_or_init(|| served_table(&self.files));
            let list = table[kind.table()].as_array()?;
            let id = id.to_string();
            list.iter()
                .find(|entity| entity["id"] == id.as_str())
                .cloned()
        };
        let make = |table, closed: &[Closed]| compile(table, closed, hash, &self.plugins, before);
        let published = || payload.config_table.clone();
        let compiled = isolate(published(), published, kept, &[], make);
        let Isolated {
            made: mut configuration,
            mut table,
            refused,
            closed,
        } = compiled.map_err(|bad| ApplyError(lines(&bad)))?;
        let payload = match refused.is_empty() {
            true => payload,
            false => {
                // what runs is not what was sent, and says so
                if !closed.is_empty() {
                    table[CLOSED] = serde_json::to_value(&closed).unwrap_or_default();
                }
                let served = Reconfigure::new(table, payload.timestamp.unwrap_or_default());
                configuration.hash = served.hash();
                served
            }
        };
        let hash = configuration.hash;
        disk.store(&Saved {
            hash,
            version: None,
            payload,
        });
        *state = State::new(None);
        self.swap(configuration, &refused, refused.len());
        Ok(Applied { hash, refused })
    }

    /// The configuration in force, made anew for what its references stand for now.
    ///
    /// # Errors
    /// A reference stands for nothing any more, or the files are gone; nothing changes then.
    pub(super) fn renew(&self) -> Result<(), ApplyError> {
        let state = self.state();
        let current = self.shared.configuration();
        if !current.has_references() {
            return Ok(());
        }
        let before = (&*current, &*self.shared.balancers);
        let mut served = match &state.source {
            Some(source) => source.served_table(),
            None => served_table(&self.files),
        };
        closed_of(&mut served);
        if !served.is_object() {
            let text = "the configuration in force is not on the disk";
            return Err(ApplyError(text.to_owned()));
        }
        let closed = &current.closed();
        let configuration = compile(served, closed, current.hash, &self.plugins, before)
            .map_err(|bad| ApplyError(lines(&bad)))?;
        self.shared.swap(configuration);
        Ok(())
    }

    /// Changes, as they come over protocol v2.
    fn changes(&self, deltas: Deltas) -> Synced {
        let mut disk = self.disk();
        let mut state = self.state();
        // whatever comes of these changes is told with the version that is in force
        if disk.append(&state.unwritten()) {
            disk.store_source(&mut state);
        }
        let current = self.shared.configuration();
        let before = (&*current, &*self.shared.balancers);
        let at = state
            .source
            .as_ref()
            .map_or(SyncVersion::NONE, Source::version);
        if !deltas.full && (state.source.is_none() || deltas.from.is_some_and(|from| from != at)) {
            return Synced::Elsewhere;
        }
        if deltas.version.is_before(&at) {
            let version = deltas.version;
            if !deltas.full {
                // changes lead on, never back
                warn!(%version, %at, "changes to an earlier version are not taken, everything is asked for");
                return Synced::Diverged;
            }
            warn!(%version, %at, "the control plane went back to an earlier version");
        }
        let nothing = Source::default();
        let from = match (&state.source, deltas.full) {
            (Some(source), false) => source,
            _ => &nothing,
        };
        let found = from.hash_after(&deltas.list);
        if let Some(wanted) = deltas.hash.filter(|wanted| *wanted != found) {
            self.stats.resyncs.fetch_add(1, Ordering::Relaxed);
            error!(%wanted, %found, version = %deltas.version, full = deltas.full,
                "what runs would not be what was published");
            return Synced::Diverged;
        }
        if !deltas.full && deltas.list.is_empty() {
            let Some(source) = &mut state.source else {
                return Synced::Elsewhere;
            };
            source.take(deltas.version, &[], &[]);
            let report = report(source, current.hash);
            // what comes next starts from this version, also after a restart
            if deltas.version != at && disk.append(&[record(at, deltas, Vec::new())]) {
                disk.store_source(&mut state);
            }
            return Synced::Done(report);
        }
        let done = match deltas.full {
            true => self.full(&mut state, &deltas, before),
            false => self.part(&mut state, &deltas, before),
        };
        let (configuration, record) = match done {
            Ok(done) => done,
            Err(ApplyError(problem)) => return Synced::Refused(problem),
        };
        let Some(source) = &state.source else {
            return Synced::Elsewhere;
        };
        let report = report(source, configuration.hash);
        let told = record.as_ref().map_or(&report.refused, |it| &it.refused);
        let told = told.clone();
        state.overtaken();
        let whole = match record {
            Some(record) => disk.append(&[record]),
            None => {
                disk.store_source(&mut state);
                false
            }
        };
        self.swap(configuration, &told, report.refused.len());
        if whole {
            disk.store_source(&mut state);
        }
        Synced::Done(report)
    }

    /// All entities there are.
    fn full(
        &self,
        state: &mut State,
        deltas: &Deltas,
        before: (&Configuration, &Balancers),
    ) -> Result<(Configuration, Option<Record>), ApplyError> {
        let mut source = Source::default();
        source.take(deltas.version, &deltas.list, &[]);
        let old = match state.source.take() {
            Some(old) => old,
            None => Source::from_stored(SyncVersion::NONE, &mut served_table(&self.files)),
        };
        let made = serve_all(&mut source, Some(&old), &self.plugins, before);
        // a source that cannot be served at all is no place to go on from
        state.source = Some(if made.is_ok() { source } else { old });
        Ok((made?, None))
    }

    /// A few entities that need no look at the whole: they are in force, and noted to be kept.
    /// `None` leaves everything as it was; else their list is taken.
    ///
    /// Takes no longer than it may on a thread that does other things as well.
    pub(super) fn quick(&self, deltas: &mut Deltas) -> Option<Synced> {
        let mut state = self.state.try_lock().ok()?;
        let (configuration, from, refused) = self.quick_edit(&mut state, deltas)?;
        let (config_hash, work) = (configuration.hash, configuration.work());
        let report = Report {
            version: deltas.version,
            config_hash,
            refused: state.source.as_ref().map_or_else(Vec::new, Source::refused),
        };
        self.swap_quietly(configuration, &refused, report.refused.len());
        let version = report.version;
        let list = std::mem::take(&mut deltas.list);
        let deltas = Deltas {
            list,
            ..deltas.clone()
        };
        let settles = state.note(record(from, deltas, refused), report, work);
        Some(Synced::InForce {
            version,
            config_hash,
            settles,
        })
    }

    /// What is to be in force, from which version it leads on, and what of the changes is refused.
    fn quick_edit(
        &self,
        state: &mut State,
        deltas: &Deltas,
    ) -> Option<(Configuration, SyncVersion, Vec<Refused>)> {
        let few = !deltas.list.is_empty() && deltas.list.len() <= QUICK_MAX;
        if deltas.full || !few || state.is_full() {
            return None;
        }
        let source = state.source.as_mut()?;
        let from = source.version();
        if deltas.from.is_some_and(|wanted| wanted != from) || deltas.version.is_before(&from) {
            return None;
        }
        let hash = source.hash_after(&deltas.list);
        if deltas.hash.is_some_and(|wanted| wanted != hash) {
            return None;
        }
        let current = self.shared.configuration();
        let before = (&*current, &*self.shared.balancers);
        let (configuration, refused) = self.edit(source, deltas, before, QUICK_MAX)?;
        Some((configuration, from, refused))
    }

    /// Waits until the disk has what [`quick`](Applier::quick) put in force. What is to be told of
    /// it, unless somebody has told it.
    fn settle_now(&self) -> Option<Report> {
        let mut disk = self.disk();
        let (records, settled) = self.state().noted()?;
        if disk.append(&records) {
            disk.store_source(&mut self.state());
        }
        drop(disk);
        let Settled {
            report,
            sets,
            compiled,
            removed,
        } = settled;
        let routes = self.shared.configuration().routes();
        let hash = report.config_hash;
        info!(%hash, routes, sets, compiled, removed, "configuration in force");
        Some(report)
    }

    /// Changes as an edit of what there is, if they are about no more than `items_max` entities
    /// and take no look at the whole.
    fn edit(
        &self,
        source: &mut Source,
        deltas: &Deltas,
        (current, balancers): (&Configuration, &Balancers),
        items_max: usize,
    ) -> Option<(Configuration, Vec<Refused>)> {
        let before = Before {
            source,
            current,
            balancers,
            plugins: &self.plugins,
        };
        let edited = edited(before, deltas, items_max)?;
        let told = |(_, rejected): &(_, Rejected)| rejected.told.clone();
        let refused = edited.changes.rejected.iter().map(told).collect();
        source.take_edited(deltas.version, &deltas.list, edited.changes);
        let mut configuration = edited.configuration;
        configuration.hash = source.served_hash();
        Some((configuration, refused))
    }

    /// Some entities that are other than before.
    fn part(
        &self,
        state: &mut State,
        deltas: &Deltas,
        before: (&Configuration, &Balancers),
    ) -> Result<(Configuration, Option<Record>), ApplyError> {
        let source = state.source.as_mut().expect("the caller looked");
        let from = source.version();
        if let Some((configuration, refused)) = self.edit(source, deltas, before, usize::MAX) {
            let record = record(from, deltas.clone(), refused);
            return Ok((configuration, Some(record)));
        }
        self.stats.rebuilds.fetch_add(1, Ordering::Relaxed);
        let mut old = std::mem::take(source);
        let mut record = record(from, deltas.clone(), Vec::new());
        let mut new = old.clone(); // texts are shared
        new.take(deltas.version, &deltas.list, &[]);
        let made = serve_all(&mut new, Some(&old), &self.plugins, before);
        match made {
            Ok(configuration) => {
                *source = new;
                record.refused = source.refused();
                Ok((configuration, Some(record)))
            }
            Err(error) => {
                std::mem::swap(source, &mut old);
                Err(error)
            }
        }
    }
}

/// Changes that are put in force at once, without waiting for the disk.
const QUICK_MAX: usize = 16;

/// Milliseconds that changes that are in force wait for others, to go to the disk in one write and
/// to the control plane in one report. Drawn anew each time, so that many gateways do not do that
/// at the same moment.
const SETTLE_AFTER_MS: RangeInclusive<u64> = 50..=150;

fn pause(dice: u64) -> Duration {
    let (least, most) = SETTLE_AFTER_MS.into_inner();
    Duration::from_millis(least + dice % (most - least + 1))
}

/// Objects that are named one by one in the log.
const REFUSED_LOGGED_MAX: usize = 20;

/// What is kept of changes to what was there at `from`.
fn record(from: SyncVersion, deltas: Deltas, refused: Vec<Refused>) -> Record {
    let from = Some(from);
    let deltas = Deltas { from, ..deltas };
    Record { deltas, refused }
}

fn report(source: &Source, config_hash: ConfigHash) -> Report {
    Report {
        version: source.version(),
        config_hash,
        refused: source.refused(),
    }
}

/// Makes everything published ready to serve, or what `old` served in its place.
pub(super) fn serve_all(
    source: &mut Source,
    old: Option<&Source>,
    plugins: &Enabled,
    before: (&Configuration, &Balancers),
) -> Result<Configuration, ApplyError> {
    let table = source.table();
    serve(source, table, old, plugins, before)
}

/// The same, with the table of what is published.
pub(super) fn serve(
    source: &mut Source,
    table: Value,
    old: Option<&Source>,
    plugins: &Enabled,
    before: (&Configuration, &Balancers),
) -> Result<Configuration, ApplyError> {
    let hash = source.published_hash();
    let isolated = {
        let own = &*source;
        let kept = |kind, id| old.unwrap_or(own).served_value(kind, id);
        let again = || own.table();
        isolate(table, again, kept, &[], |table, closed| {
            compile(table, closed, hash, plugins, before)
        })
    };
    let isolated = isolated.map_err(|bad| ApplyError(lines(&bad)))?;
    let judging = (plugins, before.0.flavor());
    source.set_refused(isolated.refused, &isolated.table, judging);
    let mut configuration = isolated.made;
    configuration.hash = source.served_hash();
    Ok(configuration)
}

/// Member of a stored table of protocol v1 with what is closed: the table has only what is served.
const CLOSED: &str = "_closed";

/// Takes out of a stored table what is closed.
pub(super) fn closed_of(table: &mut Value) -> Vec<Closed> {
    let closed = table.as_object_mut().and_then(|it| it.remove(CLOSED));
    serde_json::from_value(closed.unwrap_or_default()).unwrap_or_default()
}

/// What the stored configuration has; nothing if there is none.
fn served_table(files: &LastKnownGood) -> Value {
    match files.load() {
        Ok(Some(loaded)) => loaded.saved.payload.config_table,
        _ => Value::Null,
    }
}

impl Apply for Arc<Applier> {
    async fn apply(&self, payload: Reconfigure) -> Result<Applied, ApplyError> {
        let applier = self.clone();
        // compiling and waiting for the disk would hold up the link's own frames
        let made = tokio::task::spawn_blocking(move || applier.whole(payload)).await;
        made.map_err(|panic| ApplyError(panic.to_string()))?
    }

    async fn sync(&self, mut deltas: Deltas) -> Synced {
        if let Some(in_force) = self.quick(&mut deltas) {
            return in_force;
        }
        let applier = self.clone();
        let made = tokio::task::spawn_blocking(move || applier.changes(deltas)).await;
        made.unwrap_or_else(|panic| Synced::Refused(panic.to_string()))
    }

    async fn settle(&self) -> Option<Report> {
        tokio::time::sleep(pause(getrandom::u64().unwrap_or_default())).await;
        let applier = self.clone();
        let settled = tokio::task::spawn_blocking(move || applier.settle_now()).await;
        settled.unwrap_or_else(|panic| {
            error!(%panic, "changes in force may not survive a restart");
            None
        })
    }
}

pub(super) fn compile(
    table: Value,
    closed: &[Closed],
    hash: ConfigHash,
    plugins: &Enabled,
    (before, balancers): (&Configuration, &Balancers),
) -> Result<Configuration, Vec<Objection>> {
    let declared = parse(table, Format::Payload, plugins)
        .map_err(|bad| bad.iter().map(Objection::from).collect::<Vec<_>>())?;
    for warning in &declared.warnings {
        warn!(%warning, "configuration of the control plane");
    }
    before
        .next_with(&declared, hash, balancers, closed)
        .map_err(|bad| bad.iter().map(Objection::from).collect())
}
