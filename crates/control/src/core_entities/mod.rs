//! Entities of one control plane, under `/v2/control-planes/{id}/core-entities`.
//!
//! The paths and values are those that decK and the other clients of a hosted control plane use;
//! decK 1.4.0, which knows only Kong's Admin API, works on this prefix as well.

pub(crate) mod admin;
mod admin_error;
mod batch;
mod described;
mod error;
mod generated;
mod import;
mod members;
mod place;
mod read;
mod schemas;
mod write;

use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Json, Router};
use http::request::Parts;
use http::{Method, StatusCode};
use sallyport_model::Kind;
use sallyport_store::{Actor, ClusterType, ControlPlane, ListQuery, Page, Store, StoreError};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) use self::described::schema_name;
use self::error::CoreError;
pub use self::import::{ImportError, import};
use self::place::Place;
use crate::app::App;
use crate::body;
use crate::identity::{Access, Needs, Part, Principal, allowed};
use crate::route::Route;
use crate::versions::{self, AsOfError};

/// The paths below which entities are.
const PREFIX: &str = "/v2/control-planes/{cp}/core-entities";
/// The same at a past version, as a prefix for clients that add no arguments.
const PAST_PREFIX: &str = "/v2/control-planes/{cp}/versions/{version}/core-entities";

/// Answers everything below the prefixes; what each path needs is checked there, by
/// [`Place::needs`].
pub(crate) fn router() -> Router<App> {
    let mut router = Router::new();
    for path in [PREFIX, PAST_PREFIX] {
        router = router
            .route(path, any(answer))
            .route(&format!("{path}/"), any(answer))
            .route(&format!("{path}/{{*rest}}"), any(answer));
    }
    router
}

/// What [`router`] serves, path by path.
pub(crate) fn routes() -> Vec<Route> {
    let mut all = described::routes();
    let path = "/v2/control-planes/{cp}/core-entities:batch";
    // what each operation needs is checked there
    let needs = Needs::ControlPlane(Part::Itself, Access::Read);
    let route = Route::post(path, needs, "Several writes as one version", batch::answer);
    all.push(route.takes("Batch").gives(200, "BatchAnswer"));
    all
}

/// Refuses writes of entities where others write them.
fn writable(control_plane: &ControlPlane) -> Result<(), CoreError> {
    match control_plane.cluster_type {
        ClusterType::K8sIngressController => Err(CoreError::IngressController),
        ClusterType::ControlPlaneGroup => Err(CoreError::Group),
        _ => Ok(()),
    }
}

/// One request, as the parts of this feature see it.
struct Ask {
    app: App,
    cp: Uuid,
    actor: Actor,
    query: Vec<(String, String)>,
    /// The past version that is read, if it is not the newest.
    version: Option<u64>,
    /// What comes before the collections in links.
    prefix: String,
    /// Whether it is one of several writes that are stored together.
    is_batch: bool,
    /// Whether it is about a group: what it reads are the entities of the members.
    is_group: bool,
}

impl Ask {
    /// Of a batch: without arguments, at the newest version.
    fn of_batch(app: App, cp: Uuid, actor: Actor) -> Ask {
        Ask {
            app,
            cp,
            actor,
            query: Vec::new(),
            version: None,
            prefix: String::new(),
            is_batch: true,
            is_group: false,
        }
    }

    /// One entity by id, at the version of the request.
    async fn stored(&self, kind: Kind, id: Uuid) -> Result<Option<Value>, StoreError> {
        match self.version {
            Some(version) => self.app.store.at(self.cp, version).get(kind, id).await,
            None if self.is_group => self.app.store.together(self.cp).get(kind, id).await,
            None => self.app.store.get(self.cp, kind, id).await,
        }
    }

    /// One entity by the value of a unique field, at the version of the request.
    async fn find(
        &self,
        kind: Kind,
        field: &str,
        value: &str,
    ) -> Result<Option<Value>, StoreError> {
        let (store, cp) = (&self.app.store, self.cp);
        match self.version {
            Some(version) => store.at(cp, version).find(kind, field, value).await,
            None if self.is_group => store.together(cp).find(kind, field, value).await,
            None => store.find(cp, kind, field, value).await,
        }
    }

    /// A page of a kind, at the version of the request.
    async fn page(&self, kind: Kind, query: ListQuery) -> Result<Page, StoreError> {
        match self.version {
            Some(version) => self.app.store.at(self.cp, version).list(kind, query).await,
            None if self.is_group => self.app.store.together(self.cp).list(kind, query).await,
            None => self.app.store.list(self.cp, kind, query).await,
        }
    }
}

/// The version that the path or `?as_of=` asks for.
async fn version(
    store: &Store,
    cp: Uuid,
    in_path: Option<&str>,
    query: &[(String, String)],
) -> Result<Option<u64>, CoreError> {
    let in_query = query.iter().find(|(name, _)| name == "as_of");
    let in_query = in_query.map(|(_, value)| value.as_str());
    let Some(text) = in_path.or(in_query) else {
        return Ok(None);
    };
    match versions::named(store, cp, text).await {
        Ok(version) => Ok(Some(version)),
        Err(AsOfError::Form(reason)) if in_path.is_some() => {
            tracing::debug!(reason, "no such version");
            Err(CoreError::NotFound)
        }
        Err(AsOfError::Form(reason)) => Err(CoreError::ListOption(format!("as_of: {reason}"))),
        Err(AsOfError::Store(error)) => Err(error.into()),
    }
}

async fn answer(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Extension(caller): Extension<Principal>,
    Path(path): Path<Vec<(String, String)>>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, CoreError> {
    let part = |wanted| {
        let found = path.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    let cp = Uuid::try_parse(part("cp").unwrap_or("")).map_err(|_| CoreError::NotFound)?;
    // The raw path: a key may hold an encoded slash.
    let path = request.uri().path().to_owned();
    let (prefix, below) = path.split_once("/core-entities").unwrap_or_default();
    let asked = Asked {
        app,
        cp,
        actor,
        caller,
        query,
        version: part("version"),
        prefix: format!("{prefix}/core-entities"),
        below,
        by: By::Api,
    };
    asked.answer(request).await
}

/// As [`answer`], for the ingress controller whose control plane it is.
pub(crate) async fn for_ingress(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    Extension(caller): Extension<Principal>,
    Path((cp, _)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, CoreError> {
    let id = Uuid::try_parse(&cp).map_err(|_| CoreError::NotFound)?;
    let path = request.uri().path().to_owned();
    let prefix = format!("/kic/api/control-planes/{cp}");
    let below = path.strip_prefix(&prefix).unwrap_or_default();
    let asked = Asked {
        app,
        cp: id,
        actor,
        caller,
        query,
        version: None,
        below,
        prefix: prefix.clone(),
        by: By::Ingress,
    };
    asked.answer(request).await
}

/// Through which door a request for entities came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Api,
    /// Kong's Admin API, which has PATCH.
    Admin,
    /// The ingress controller that owns the entities. It gives up where a kind cannot be listed.
    Ingress,
}

/// A request below a prefix of entities, whichever it is.
struct Asked<'a> {
    app: App,
    cp: Uuid,
    actor: Actor,
    caller: Principal,
    query: Vec<(String, String)>,
    /// The version in the path.
    version: Option<&'a str>,
    /// What comes before the collections in links.
    prefix: String,
    /// What comes behind it in the path.
    below: &'a str,
    by: By,
}

impl Asked<'_> {
    async fn answer(self, request: Request) -> Result<Response, CoreError> {
        let (
            Parts {
                method, headers, ..
            },
            body,
        ) = request.into_parts();
        let Asked {
            app,
            cp,
            actor,
            caller,
            query,
            version: in_path,
            prefix,
            below,
            by,
        } = self;
        let place = Place::parse(below);
        if !allowed(&app.store, &caller, place.needs(&method), Some(cp)).await {
            return Err(CoreError::Forbidden);
        }
        let control_plane = app.store.control_plane(cp).await?;
        let writes = matches!(
            method,
            Method::POST | Method::PUT | Method::PATCH | Method::DELETE
        );
        let validates = matches!(place, Place::Validate(_));
        if writes && !validates && by != By::Ingress {
            writable(&control_plane)?;
        }
        let version = version(&app.store, cp, in_path, &query).await?;
        if writes && !validates && version.is_some() {
            return Err(CoreError::Past);
        }
        let is_group = control_plane.cluster_type == ClusterType::ControlPlaneGroup;
        if is_group && version.is_some() {
            let message = "a group has no past versions of its own; read those of its members";
            return Err(CoreError::ListOption(message.to_owned()));
        }
        let ask = Ask {
            app,
            cp,
            actor,
            query,
            version,
            prefix,
            is_batch: false,
            is_group,
        };
        match (method, place) {
            (Method::GET, Place::Unsupported(_))
                if by == By::Ingress && !below.trim_matches('/').contains('/') =>
            {
                Ok(Json(json!({"data": [], "next": null})).into_response())
            }
            (Method::GET | Method::HEAD, place) => get(&ask, place).await,
            (_, Place::Unsupported(name)) if writes => Err(CoreError::Unsupported(name)),
            (Method::POST, Place::Collection(collection)) if collection.writable() => {
                let body = body::object(&headers, body).await?;
                let stored = write::create(&ask, &collection, body).await?;
                Ok((StatusCode::CREATED, Json(stored)).into_response())
            }
            (Method::PUT, Place::One(collection, key)) if collection.writable() => {
                let body = body::object(&headers, body).await?;
                Ok(Json(write::upsert(&ask, &collection, &key, body).await?).into_response())
            }
            (Method::PATCH, Place::One(collection, key))
                if by == By::Admin && collection.writable() =>
            {
                let body = body::object(&headers, body).await?;
                Ok(Json(write::change(&ask, &collection, &key, body).await?).into_response())
            }
            (Method::DELETE, Place::One(collection, key)) if collection.writable() => {
                write::delete(&ask, &collection, &key).await?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            (Method::POST, Place::Members(members)) => {
                let body = body::object(&headers, body).await?;
                let added = members.add(&ask, body).await?;
                Ok((StatusCode::CREATED, Json(added)).into_response())
            }
            (Method::DELETE, Place::Members(members)) => {
                members.remove(&ask, None).await?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            (Method::DELETE, Place::Member(members, other)) => {
                members.remove(&ask, Some(&other)).await?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            (Method::POST, Place::Validate(table)) => {
                let kind = Kind::from_table(&table).ok_or(CoreError::Unsupported(table))?;
                schemas::validate(&ask.app, kind, body::object(&headers, body).await?)?;
                Ok(Json(json!({"message": "schema validation successful"})).into_response())
            }
            (_, Place::Unknown) => Err(CoreError::NotFound),
            (method, _) => {
                let path = format!("{}{below}", ask.prefix);
                Err(CoreError::Method(method, path))
            }
        }
    }
}

async fn get(ask: &Ask, place: Place) -> Result<Response, CoreError> {
    let value = match place {
        Place::Root => schemas::root(ask).await,
        Place::Collection(collection) => read::list(ask, &collection).await?,
        Place::One(collection, key) => {
            let found = read::one(ask, &collection, &key).await?;
            match collection.kind {
                Kind::ConsumerGroup => members::group(ask, found).await?,
                _ => found,
            }
        }
        Place::Members(members) => members.list(ask).await?,
        Place::VaultSchema(name) => schemas::vault(&name)?,
        Place::PluginSchema(name) => schemas::plugin(&ask.app, &name)?,
        Place::EntitySchema(table) => schemas::entity(&table)?,
        Place::JsonSchema(singular) => schemas::json(&singular)?,
        Place::Unsupported(_) | Place::Validate(_) | Place::Member(..) | Place::Unknown => {
            return Err(CoreError::NotFound);
        }
    };
    Ok(Json(value).into_response())
}
