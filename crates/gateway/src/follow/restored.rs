//! What a gateway starts with.

use sallyport_wire::config_sync::delta::SyncVersion;
use tracing::warn;

use super::apply::{closed_of, compile, serve};
use super::isolate::{isolate, lines};
use super::source::{Source, patch};
use crate::balancer::Balancers;
use crate::closed::Closed;
use crate::config_sync::ApplyError;
use crate::configuration::Configuration;
use crate::enabled::Enabled;
use crate::last_known_good::Loaded;
use crate::last_known_good::changes::Record;

/// What a gateway starts with.
pub(crate) struct Start {
    pub(crate) configuration: Configuration,
    source: Option<Source>,
}

impl Start {
    /// With a configuration that came from nowhere.
    pub(crate) fn with(configuration: Configuration) -> Start {
        Start {
            configuration,
            source: None,
        }
    }

    /// The version that is there.
    pub(super) fn version(&self) -> SyncVersion {
        self.source
            .as_ref()
            .map_or(SyncVersion::NONE, Source::version)
    }

    /// Takes out what later changes start from.
    pub(crate) fn take_source(&mut self) -> StartSource {
        StartSource(self.source.take())
    }
}

/// What later changes start from.
#[derive(Default)]
pub(crate) struct StartSource(pub(super) Option<Source>);

impl StartSource {
    pub(super) fn version(&self) -> SyncVersion {
        self.0.as_ref().map_or(SyncVersion::NONE, Source::version)
    }
}

/// Makes a stored configuration ready to serve, with the changes that follow on it.
pub(super) fn restored(
    loaded: Loaded,
    plugins: &Enabled,
    before: (&Configuration, &Balancers),
) -> Result<Start, ApplyError> {
    let Loaded { saved, changes, .. } = loaded;
    let Some(version) = saved.version else {
        // another build wrote it, perhaps: what this one cannot serve must not cost the rest
        let (hash, mut table) = (saved.hash, saved.payload.config_table);
        let closed = closed_of(&mut table);
        let make = |it, closed: &[Closed]| compile(it, closed, hash, plugins, before);
        let isolated = isolate(table.clone(), || table, |_, _| None, &closed, make);
        let isolated = isolated.map_err(|bad| ApplyError(lines(&bad)))?;
        for told in &isolated.refused {
            warn!(?told, "entity refused, the others are in force");
        }
        return Ok(Start::with(isolated.made));
    };
    let mut table = saved.payload.config_table;
    let mut source = Source::from_stored(version, &mut table);
    let mut followed = Vec::new();
    for Record { deltas, refused } in changes {
        if deltas.from == Some(source.version()) {
            source.take(deltas.version, &deltas.list, &refused);
            followed.extend(deltas.list);
        }
    }
    patch(&mut table, followed);
    let configuration = serve(&mut source, table, None, plugins, before)?;
    Ok(Start {
        configuration,
        source: Some(source),
    })
}
