//! A declarative document written into a control plane, entity by entity.

use sallyport_model::Kind;
use sallyport_model::declarative::{Format, Problem, parse_text};
use sallyport_model::schema::{self, Mode, PluginSchemas};
use sallyport_store::{Actor, IfExists, Store};
use uuid::Uuid;

use super::error::CoreError;
use super::generated::complete_plugin;
use super::write::put;

/// Why a document was not written, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The document has problems; nothing was written.
    #[error("the document has problems: {}", joined(.0))]
    Document(Vec<Problem>),
    /// An entity could not be written; those before it were.
    #[error("{kind} {id} could not be written: {reason}")]
    Entity {
        /// What it is.
        kind: Kind,
        /// Which one.
        id: String,
        /// What is wrong.
        reason: String,
    },
}

/// Writes every entity of a declarative document (YAML or JSON) into a control plane.
///
/// An entity whose id is there already is replaced.
///
/// # Errors
/// See [`ImportError`].
pub async fn import(
    store: &Store,
    plugins: &dyn PluginSchemas,
    cp: Uuid,
    actor: &Actor,
    text: &str,
) -> Result<(), ImportError> {
    let mut declared = parse_text(text, Format::File, plugins).map_err(ImportError::Document)?;
    for kind in Kind::ALL {
        let Some(list) = declared.value[kind.table()].as_array_mut() else {
            continue;
        };
        for entity in std::mem::take(list) {
            let shown = entity["id"].as_str().unwrap_or_default().to_owned();
            let refuse = |reason: String| ImportError::Entity {
                kind,
                id: shown.clone(),
                reason,
            };
            let mut entity = schema::parse_entity_in(kind, entity, Mode::Payload, plugins)
                .map_err(|errors| refuse(joined(&errors)))?;
            let fresh = Uuid::new_v4();
            let failed = |error| match error {
                CoreError::Store(error, _) => refuse(error.to_string()),
                _ => refuse("the system gave no random bytes".to_owned()),
            };
            if kind == Kind::Plugin {
                let completed = complete_plugin(store, cp, plugins, &mut entity, fresh).await;
                completed.map_err(failed)?;
            }
            let stored = put(store, cp, actor, kind, entity, fresh, IfExists::Replace).await;
            stored.map_err(failed)?;
        }
    }
    Ok(())
}

fn joined(list: &[impl ToString]) -> String {
    list.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
