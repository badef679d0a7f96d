//! The Admin API of a gateway without a database: everything can be read, and a whole
//! declarative document put in force (`POST /config`). Single entities cannot be written.
//!
//! Source: control-plane reference 2 (Kong's `kong/api`), data-plane reference 8.6. There is no
//! login; it listens on loopback unless told otherwise, and pages of other origins may not write.

mod config;
mod entities;
mod error;
mod health;
mod info;
mod place;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::{Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use sallyport_model::schema::{self, Mode};
use serde_json::{Value, json};

use super::{Answer, Node, arguments, message, reply, status};
use crate::balancer::Upstreams;
use error::AdminError;
use place::Place;

pub(super) async fn answer(request: Request<Incoming>, node: &Arc<Node>) -> Answer {
    let (head, body) = request.into_parts();
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    if !is_read && is_of_another_origin(&head) {
        return message(
            StatusCode::FORBIDDEN,
            "pages of other origins may not write here",
        );
    }
    let place = Place::parse(head.uri.path());
    match (&head.method, &place) {
        (_, Place::Config) if !is_read => config::put(&head, body, node).await,
        (&Method::POST, Place::Validate(name)) => match config::read(&head, body).await {
            Ok(text) => finished(validate(name, &text, node)),
            Err(error) => error.answer(),
        },
        (&Method::PUT | &Method::POST, Place::SetHealth(set)) => {
            match set.apply(&upstreams(node)) {
                Ok(nothing) => reply(StatusCode::NO_CONTENT, &nothing),
                Err(error) => error.answer(),
            }
        }
        _ if is_read => read(&place, &head.uri, node),
        _ => refused(&head.method, &place),
    }
}

/// The parts of the Admin API that the Status API has too.
pub(super) fn upstream_views(method: &Method, uri: &Uri, node: &Node) -> Answer {
    let place = Place::parse(uri.path());
    match (method, &place) {
        (&Method::GET | &Method::HEAD, Place::Health(_)) => read(&place, uri, node),
        (&Method::GET | &Method::HEAD, Place::Below { child, .. })
            if *child == sallyport_model::Kind::Target =>
        {
            read(&place, uri, node)
        }
        _ => AdminError::NotFound.answer(),
    }
}

fn finished(result: Result<Value, AdminError>) -> Answer {
    match result {
        Ok(body) => reply(StatusCode::OK, &body),
        Err(error) => error.answer(),
    }
}

fn read(place: &Place, uri: &Uri, node: &Node) -> Answer {
    let configuration = node.shared.configuration();
    let all = &configuration.entities;
    let query = arguments(uri.query());
    finished(match place {
        Place::Root => Ok(info::root(node)),
        Place::Status => return status::status(node, uri.query()),
        Place::Metrics => return status::metrics(node),
        Place::Config => Ok(json!({"config": all.document()})),
        Place::Endpoints => Ok(info::endpoints()),
        Place::EnabledPlugins => Ok(info::enabled_plugins(node)),
        Place::EntitySchema(table) => entity_schema(table),
        Place::PluginSchema(name) => schema::plugin_schema(name, &node.enabled)
            .map_err(|_| AdminError::NoPlugin(name.clone())),
        Place::Tags(tag) => entities::tags(all, tag.as_deref(), &query),
        Place::Collection(kind) => entities::list(all, *kind, None, &query),
        Place::One(sallyport_model::Kind::ConsumerGroup, key) => entities::group(all, key, &query),
        Place::One(kind, key) => entities::one(all, *kind, key),
        Place::Members { of, key, path } => entities::members(all, (*of, key), path, &query),
        Place::Below {
            parent,
            key,
            child,
            field,
            path,
        } => entities::list_below(all, (*parent, key), *child, field, path, &query),
        Place::OneBelow {
            parent,
            key,
            child,
            field,
            child_key,
        } => entities::one_below(all, (*parent, key), *child, field, child_key),
        Place::Foreign { kind, key, field } => entities::foreign(all, *kind, key, field),
        Place::Health(upstream) => health::health(&upstreams(node), upstream, node.id, &query),
        Place::SetHealth(_) => Err(AdminError::Method),
        Place::OtherBuilds => Ok(json!({"data": [], "next": null})),
        Place::Clustering => Err(AdminError::NotAControlPlane),
        Place::Validate(_) => Err(AdminError::Method),
        Place::Unknown => Err(AdminError::NotFound),
    })
}

fn upstreams(node: &Node) -> Upstreams {
    Upstreams(node.shared.balancers.clone())
}

fn entity_schema(table: &str) -> Result<Value, AdminError> {
    let kind = sallyport_model::Kind::from_table(table);
    let kind = kind.ok_or_else(|| AdminError::NoEntity(table.to_owned()))?;
    Ok(schema::lua_schema(&schema::of(kind).record))
}

fn validate(table: &str, text: &str, node: &Node) -> Result<Value, AdminError> {
    let kind = sallyport_model::Kind::from_table(table);
    let kind = kind.ok_or_else(|| AdminError::NoEntity(table.to_owned()))?;
    let body = serde_json::from_str(text).map_err(|_| AdminError::NotJson)?;
    match schema::parse_entity_in(kind, body, Mode::Strict, &node.enabled) {
        Ok(_) => Ok(json!({"message": "schema validation successful"})),
        Err(errors) => Err(AdminError::Schema(errors)),
    }
}

/// The answer to a write: without a database nothing but a whole document can be written.
fn refused(method: &Method, place: &Place) -> Answer {
    let kind = match place {
        Place::Collection(kind) | Place::One(kind, _) => *kind,
        Place::Below { child, .. } | Place::OneBelow { child, .. } => *child,
        Place::Foreign { kind, .. } => *kind,
        Place::Health(_) | Place::OtherBuilds | Place::Unknown => {
            return AdminError::NotFound.answer();
        }
        _ => return AdminError::Method.answer(),
    };
    let operation = match *method {
        Method::POST => "create",
        Method::PUT => "create or update",
        Method::PATCH => "update",
        Method::DELETE => "remove",
        _ => return AdminError::Method.answer(),
    };
    AdminError::ReadOnly(operation, kind).answer()
}

/// Whether a browser says that another site's page made it send this.
fn is_of_another_origin(head: &Parts) -> bool {
    let Some(origin) = head.headers.get(ORIGIN) else {
        return false;
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin_host = origin.split_once("://").map(|(_, host)| host);
    origin_host.is_none() || origin_host != host
}
