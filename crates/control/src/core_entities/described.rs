//! The paths below core-entities one by one, for the check of roles and for the documents.

use http::Method;
use sallyport_model::{Kind, schema};

use super::place::{CHILDREN, Collection, Place};
use super::{PAST_PREFIX, PREFIX};
use crate::route::Route;

/// Query arguments of lists.
const LIST: &[&str] = &["size", "offset", "tags", "as_of"];
/// The same, of entities that have names.
const LIST_OF_NAMED: &[&str] = &[
    "size",
    "offset",
    "tags",
    "as_of",
    "filter[name][eq]",
    "filter[name][contains]",
];
const ONE: &[&str] = &["as_of"];

pub(super) fn routes() -> Vec<Route> {
    let mut all = below(PREFIX);
    let past = below(PAST_PREFIX).into_iter();
    all.extend(past.filter(|route| route.method == Method::GET));
    all
}

fn below(prefix: &str) -> Vec<Route> {
    let mut all = Vec::new();
    let kinds = Kind::ALL.into_iter();
    for kind in kinds.filter(|kind| *kind != Kind::ConsumerGroupMember) {
        let writable = Collection { kind, parent: None }.writable();
        let path = kind.collection().to_owned();
        entities(&mut all, prefix, &path, kind, writable);
    }
    for child in &CHILDREN {
        let path = format!("{}/{{parent}}/{}", child.parent.collection(), child.segment);
        entities(&mut all, prefix, &path, child.kind, true);
    }
    for (path, of, item) in [
        (
            "consumer_groups/{parent}/consumers",
            "ConsumerGroup",
            "Consumer",
        ),
        (
            "consumers/{parent}/consumer_groups",
            "Consumer",
            "ConsumerGroup",
        ),
    ] {
        members(&mut all, prefix, path, of, item);
    }
    for (path, summary) in [
        ("", "Which version of Kong this behaves as"),
        ("/schemas/{table}", "The schema of a kind of entity"),
        ("/schemas/plugins/{plugin}", "The schema of a plugin"),
        ("/schemas/vaults/{vault}", "The schema of a type of vault"),
        (
            "/v1/schemas/json/{kind}",
            "The JSON Schema of a kind of entity",
        ),
    ] {
        let route = described(prefix, path, Method::GET, summary);
        all.push(route.gives(200, "Object"));
    }
    let path = "/schemas/{table}/validate";
    let route = described(
        prefix,
        path,
        Method::POST,
        "Check an entity, storing nothing",
    );
    all.push(route.takes("Object").gives(200, "Object"));
    all
}

/// The paths of one collection.
fn entities(all: &mut Vec<Route>, prefix: &str, path: &str, kind: Kind, writable: bool) {
    let (path, one) = (format!("/{path}"), format!("/{path}/{{entity}}"));
    let name = schema_name(kind);
    let row = |path: &str, method, summary| described(prefix, path, method, summary);
    all.push(
        row(&path, Method::GET, "List entities")
            .query(match schema::of(kind).endpoint_key {
                Some("name") => LIST_OF_NAMED,
                _ => LIST,
            })
            .gives(200, format!("{name}List")),
    );
    let show = row(&one, Method::GET, "Show an entity");
    all.push(show.query(ONE).gives(200, &*name));
    if writable {
        let create = row(&path, Method::POST, "Make an entity");
        all.push(create.takes(format!("{name}Input")).gives(201, &*name));
        let put = row(&one, Method::PUT, "Make or replace an entity");
        all.push(put.takes(format!("{name}Input")).gives(200, &*name));
        all.push(row(&one, Method::DELETE, "Remove an entity").gives_nothing(204));
    }
}

/// The paths of one side of the memberships of consumer groups.
fn members(all: &mut Vec<Route>, prefix: &str, path: &str, of: &str, item: &str) {
    let (path, one) = (format!("/{path}"), format!("/{path}/{{entity}}"));
    let row = |path: &str, method, summary| described(prefix, path, method, summary);
    let list = match of {
        "Consumer" => "List the consumer groups of a consumer",
        _ => "List who is in a consumer group",
    };
    let list = row(&path, Method::GET, list).query(&["size", "offset", "as_of"]);
    all.push(list.gives(200, format!("{item}List")));
    let add = row(&path, Method::POST, "Put a consumer into a consumer group");
    all.push(add.takes("Object").gives(201, "Object"));
    let clear = row(&path, Method::DELETE, "Remove all memberships");
    all.push(clear.gives_nothing(204));
    let remove = row(
        &one,
        Method::DELETE,
        "Take a consumer out of a consumer group",
    );
    all.push(remove.gives_nothing(204));
}

fn described(prefix: &str, path: &str, method: Method, summary: &'static str) -> Route {
    let needs = Place::parse(path).needs(&method);
    Route::described(method, format!("{prefix}{path}"), needs, summary)
}

/// The name of a kind's schema in the OpenAPI document, such as `KeyAuth`.
pub(crate) fn schema_name(kind: Kind) -> String {
    let words = kind.singular().split(['-', '_']);
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    words.map(capital).collect()
}
