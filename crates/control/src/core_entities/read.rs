//! Lists and single entities.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sallyport_model::{Kind, schema};
use sallyport_store::{ListQuery, Tags};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Ask;
use super::error::CoreError;
use super::place::{Collection, Parent};

const SIZE: usize = 100;
const SIZE_MAX: usize = 1000;

/// The arguments of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    pub(super) size: usize,
    pub(super) offset: Option<String>,
    tags: Tags,
    /// Exactly one value of a unique field.
    only: Option<(&'static str, String)>,
    /// A text that the name holds.
    contains: Option<(String, String)>,
}

pub(super) async fn list(ask: &Ask, collection: &Collection) -> Result<Value, CoreError> {
    let arguments = arguments(collection.kind, &ask.query)?;
    let parent = match &collection.parent {
        Some(parent) => Some((parent.field.to_owned(), parent_id(ask, parent).await?)),
        None => None,
    };
    if let Some((field, value)) = arguments.only {
        let found = ask.find(collection.kind, field, &value).await?;
        let found = found.filter(|entity| belongs(entity, parent.as_ref()));
        return Ok(json!({"data": Vec::from_iter(found), "next": null}));
    }
    let (size, tags) = (arguments.size, arguments.tags.clone());
    let query = ListQuery {
        size,
        offset: arguments.offset,
        tags,
        parent,
        contains: arguments.contains,
    };
    let page = ask.page(collection.kind, query).await?;
    let Some(offset) = page.next_offset else {
        return Ok(json!({"data": page.items, "next": null}));
    };
    let mut next = format!(
        "{}/{}?offset={offset}&size={size}",
        ask.prefix,
        collection.path()
    );
    for (name, value) in &ask.query {
        if name == "tags" || name == "as_of" || name.starts_with("filter[") {
            let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let name = if name.starts_with("filter[") {
                encode(name)
            } else {
                name.clone()
            };
            next.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    Ok(json!({"data": page.items, "next": next, "offset": offset}))
}

/// All children of an entity, however many.
pub(super) async fn all(
    ask: &Ask,
    collection: &Collection,
    parent: Uuid,
) -> Result<Vec<Value>, CoreError> {
    let field = collection.parent.as_ref().map(|parent| parent.field);
    let (mut all, mut offset) = (Vec::new(), None);
    loop {
        let query = ListQuery {
            size: SIZE_MAX,
            offset,
            tags: Tags::Ignore,
            parent: field.map(|field| (field.to_owned(), parent)),
            contains: None,
        };
        let page = ask.page(collection.kind, query).await?;
        all.extend(page.items);
        match page.next_offset {
            None => return Ok(all),
            next => offset = next,
        }
    }
}

pub(super) async fn one(ask: &Ask, collection: &Collection, key: &str) -> Result<Value, CoreError> {
    let parent = match &collection.parent {
        Some(parent) => Some((parent.field.to_owned(), parent_id(ask, parent).await?)),
        None => None,
    };
    let below = parent.as_ref().map(|(_, id)| *id);
    let found = by_key(ask, collection.kind, below, key).await?;
    found
        .filter(|entity| belongs(entity, parent.as_ref()))
        .ok_or(CoreError::NotFound)
}

/// The id of the parent in a path.
pub(super) async fn parent_id(ask: &Ask, parent: &Parent) -> Result<Uuid, CoreError> {
    // In a batch the parent may come in the same one; the store looks at references in the end.
    if let (true, Some(id)) = (ask.is_batch, uuid(&parent.key)) {
        return Ok(id);
    }
    let found = by_key(ask, parent.kind, None, &parent.key).await?;
    found.as_ref().and_then(id).ok_or(CoreError::NotFound)
}

/// An entity by its id or by the field that names its kind in URLs, for some kinds only below
/// their parent.
pub(super) async fn by_key(
    ask: &Ask,
    kind: Kind,
    parent: Option<Uuid>,
    key: &str,
) -> Result<Option<Value>, CoreError> {
    if let Some(id) = uuid(key) {
        return Ok(ask.stored(kind, id).await?);
    }
    let indexed = match (kind, parent) {
        (Kind::Target | Kind::Acl, Some(parent)) => schema::unique_child(kind, parent, key),
        (Kind::Target | Kind::Acl, None) => None,
        _ => schema::of(kind)
            .endpoint_key
            .map(|field| (field, key.to_owned())),
    };
    let Some((field, value)) = indexed else {
        return Ok(None);
    };
    Ok(ask.find(kind, field, &value).await?)
}

/// An id in its usual form. Shorter forms are not read: 32 hexadecimal digits may be a name or a key.
pub(super) fn uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == 36)
}

pub(super) fn id(entity: &Value) -> Option<Uuid> {
    uuid(entity["id"].as_str()?)
}

/// Whether an entity refers to the parent of the path, if there is one.
pub(super) fn belongs(entity: &Value, parent: Option<&(String, Uuid)>) -> bool {
    parent.is_none_or(|(field, parent)| id(&entity[field.as_str()]) == Some(*parent))
}

pub(super) fn arguments(kind: Kind, query: &[(String, String)]) -> Result<Arguments, CoreError> {
    let mut arguments = Arguments {
        size: SIZE,
        offset: None,
        tags: Tags::Ignore,
        only: None,
        contains: None,
    };
    for (name, value) in query {
        match name.as_str() {
            "size" => {
                let size = value
                    .parse()
                    .ok()
                    .filter(|size| (1..=SIZE_MAX).contains(size));
                let bad = || CoreError::ListOption(format!("invalid size: 1 to {SIZE_MAX}"));
                arguments.size = size.ok_or_else(bad)?;
            }
            "offset" => arguments.offset = Some(value.clone()),
            "tags" => arguments.tags = tags(value)?,
            "custom_id" if kind == Kind::Consumer => {
                arguments.only = Some(("custom_id", value.clone()));
            }
            "filter[name][eq]" if schema::of(kind).endpoint_key == Some("name") => {
                arguments.only = Some(("name", value.clone()));
            }
            "filter[name][contains]" if schema::of(kind).endpoint_key == Some("name") => {
                arguments.contains = Some(("name".to_owned(), value.clone()));
            }
            name if name.starts_with("filter[") => {
                let message = format!(
                    "invalid options: {name} is not supported on {}",
                    kind.collection()
                );
                return Err(CoreError::ListOption(message));
            }
            // Kong ignores what it does not know; clients add arguments of newer versions.
            _ => {}
        }
    }
    Ok(arguments)
}

fn tags(text: &str) -> Result<Tags, CoreError> {
    let split = |at| text.split(at).map(str::to_owned).collect::<Vec<String>>();
    let tags = match (text.contains(','), text.contains('/')) {
        (true, true) => {
            let message = "invalid options: tags join with ',' (all) or '/' (any), not both";
            return Err(CoreError::ListOption(message.to_owned()));
        }
        (_, true) => Tags::Any(split('/')),
        (_, false) => Tags::All(split(',')),
    };
    let (Tags::All(list) | Tags::Any(list)) = &tags else {
        return Ok(tags);
    };
    if list.iter().any(String::is_empty) {
        let message = "invalid options: a tag must not be empty";
        return Err(CoreError::ListOption(message.to_owned()));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &[(&str, &str)], expected: Option<Arguments>) {
        let query: Vec<(String, String)> = query
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        assert_eq!(
            arguments(Kind::Consumer, &query).ok(),
            expected,
            "{query:?}"
        );
    }

    fn plain() -> Arguments {
        Arguments {
            size: 100,
            offset: None,
            tags: Tags::Ignore,
            only: None,
            contains: None,
        }
    }

    #[test]
    fn arguments_of_a_list() {
        let words = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        check(&[], Some(plain()));
        check(
            &[("size", "1000")],
            Some(Arguments {
                size: 1000,
                ..plain()
            }),
        );
        for bad in ["0", "1001", "x", "-1", ""] {
            check(&[("size", bad)], None);
        }
        let all = Tags::All(words(&["a", "b"]));
        check(
            &[("tags", "a,b")],
            Some(Arguments {
                tags: all,
                ..plain()
            }),
        );
        let any = Tags::Any(words(&["a", "b"]));
        check(
            &[("tags", "a/b")],
            Some(Arguments {
                tags: any,
                ..plain()
            }),
        );
        check(
            &[("tags", "a")],
            Some(Arguments {
                tags: Tags::All(words(&["a"])),
                ..plain()
            }),
        );
        for bad in ["a,b/c", "", ",a", "a//b"] {
            check(&[("tags", bad)], None);
        }
        let only = Some(("custom_id", "7".to_owned()));
        check(&[("custom_id", "7")], Some(Arguments { only, ..plain() }));
        check(&[("expand_partials", "true")], Some(plain()));
        check(&[("filter[name][eq]", "x")], None);
    }
}
