//! Who is in a consumer group, seen from either side: `consumer_groups/{group}/consumers` and
//! `consumers/{consumer}/consumer_groups`.

use sallyport_model::{Kind, schema};
use sallyport_store::{IfExists, ListQuery, Tags, Write};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Ask;
use super::error::CoreError;
use super::place::{Collection, Parent};
use super::read::{self, arguments, by_key, id};
use super::write::{checked, indexed};

/// Members that are read at once.
const SIZE: usize = 1000;
/// Members that one call adds.
const ADDED_MAX: usize = 1000;

/// One side of the memberships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    /// A group or a consumer.
    pub(super) of: Kind,
    /// Its id or name, as in the path.
    pub(super) key: String,
}

impl Members {
    /// The kind on the other side.
    fn others(&self) -> Kind {
        match self.of {
            Kind::ConsumerGroup => Kind::Consumer,
            _ => Kind::ConsumerGroup,
        }
    }

    /// The path below core-entities, without a leading slash.
    fn path(&self) -> String {
        let parent = Some(Parent {
            kind: self.of,
            field: field(self.of),
            key: self.key.clone(),
        });
        let kind = Kind::ConsumerGroupMember;
        let path = Collection { kind, parent }.path();
        path.replace(kind.collection(), self.others().collection())
    }

    /// The entity whose memberships these are.
    async fn whose(&self, ask: &Ask) -> Result<(Value, Uuid), CoreError> {
        let found = by_key(ask, self.of, None, &self.key).await?;
        let found = found.ok_or(CoreError::NotFound)?;
        let id = id(&found).ok_or(CoreError::Internal)?;
        Ok((found, id))
    }

    /// GET: the entities on the other side, page by page.
    pub(super) async fn list(&self, ask: &Ask) -> Result<Value, CoreError> {
        let arguments = arguments(Kind::ConsumerGroupMember, &ask.query)?;
        let (_, id) = self.whose(ask).await?;
        let (size, offset) = (arguments.size, arguments.offset);
        let (others, next) = self.page(ask, id, size, offset).await?;
        // older clients look for them under the name of what they are
        let name = self.others().collection();
        let Some(offset) = next else {
            return Ok(json!({"data": others, name: others, "next": null}));
        };
        let next = format!("{}/{}?offset={offset}&size={size}", ask.prefix, self.path());
        Ok(json!({"data": others, name: others, "next": next, "offset": offset}))
    }

    /// All entities on the other side.
    async fn all(&self, ask: &Ask, of: Uuid) -> Result<Vec<Value>, CoreError> {
        let (mut all, mut offset) = (Vec::new(), None);
        loop {
            let (others, next) = self.page(ask, of, SIZE, offset).await?;
            all.extend(others);
            match next {
                None => return Ok(all),
                next => offset = next,
            }
        }
    }

    async fn page(
        &self,
        ask: &Ask,
        of: Uuid,
        size: usize,
        offset: Option<String>,
    ) -> Result<(Vec<Value>, Option<String>), CoreError> {
        let page = self.memberships(ask, of, size, offset).await?;
        let mut others = Vec::with_capacity(page.items.len());
        for membership in &page.items {
            let other = id(&membership[field(self.others())]);
            if let Some(other) = other {
                others.extend(ask.stored(self.others(), other).await?);
            }
        }
        Ok((others, page.next_offset))
    }

    async fn memberships(
        &self,
        ask: &Ask,
        of: Uuid,
        size: usize,
        offset: Option<String>,
    ) -> Result<sallyport_store::Page, CoreError> {
        let query = ListQuery {
            size,
            offset,
            tags: Tags::Ignore,
            parent: Some((field(self.of).to_owned(), of)),
            contains: None,
        };
        Ok(ask.page(Kind::ConsumerGroupMember, query).await?)
    }

    /// POST: one more, or several.
    pub(super) async fn add(&self, ask: &Ask, body: Value) -> Result<Value, CoreError> {
        let (whose, of) = self.whose(ask).await?;
        let named = self.named(&body)?;
        let (mut writes, mut added) = (Vec::new(), Vec::new());
        for key in named {
            let other = by_key(ask, self.others(), None, &key).await?;
            let Some(other) = other else {
                let message = format!("there is no {} {key:?}", self.others());
                return Err(CoreError::Argument(message));
            };
            let membership = json!({
                field(self.of): {"id": of},
                field(self.others()): {"id": other["id"]},
            });
            let kind = Kind::ConsumerGroupMember;
            let entity = checked(kind, membership, ask.app.plugins)?;
            let put = indexed(kind, entity, Uuid::new_v4(), IfExists::Refuse)?;
            writes.push(Write::Put(put));
            added.push(other);
        }
        let (store, kind) = (&ask.app.store, Some(Kind::ConsumerGroupMember));
        let stored = store.apply(ask.cp, &ask.actor, None, writes).await;
        stored.map_err(|error| CoreError::Store(error, kind))?;
        Ok(json!({field(self.of): whose, self.others().collection(): added}))
    }

    /// Ids or names in a body: `{"consumer": "a"}`, `{"consumer": {"id": "…"}}`, or a list of these.
    fn named(&self, body: &Value) -> Result<Vec<String>, CoreError> {
        // Kong says `group`
        let name = match self.others() {
            Kind::Consumer => "consumer",
            _ if body["group"].is_null() => "consumer_group",
            _ => "group",
        };
        let one = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Object(_) => {
                let keys = ["id", "name", "username"].into_iter();
                let found = keys.filter_map(|key| value[key].as_str()).next();
                found.map(str::to_owned)
            }
            _ => None,
        };
        let given = match &body[name] {
            Value::Array(list) => list.iter().map(one).collect(),
            other => one(other).map(|one| vec![one]),
        };
        match given {
            Some(given) if !given.is_empty() && given.len() <= ADDED_MAX => Ok(given),
            _ => {
                let name = match name {
                    "consumer_group" => "group",
                    other => other,
                };
                Err(CoreError::Argument(format!(
                    "{name}: expected an id or a name, or a list of up to {ADDED_MAX}"
                )))
            }
        }
    }

    /// DELETE of one, or of all; gone afterwards, whether they were there or not.
    pub(super) async fn remove(&self, ask: &Ask, other: Option<&str>) -> Result<(), CoreError> {
        let of = match self.whose(ask).await {
            Ok((_, id)) => id,
            Err(CoreError::NotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        let only = match other {
            None => None,
            Some(key) => match by_key(ask, self.others(), None, key).await? {
                None => return Ok(()),
                Some(other) => Some(id(&other).ok_or(CoreError::Internal)?),
            },
        };
        let mut writes = Vec::new();
        let mut offset = None;
        loop {
            let page = self.memberships(ask, of, SIZE, offset).await?;
            for membership in &page.items {
                let other = id(&membership[field(self.others())]);
                if let Some(own) = id(membership)
                    && (only.is_none() || only == other)
                {
                    writes.push(Write::Delete(Kind::ConsumerGroupMember, own));
                }
            }
            match page.next_offset {
                None => break,
                next => offset = next,
            }
        }
        if !writes.is_empty() {
            let store = &ask.app.store;
            store.apply(ask.cp, &ask.actor, None, writes).await?;
        }
        Ok(())
    }
}

/// GET of one group: in the form that clients know, with its consumers and plugins.
pub(super) async fn group(ask: &Ask, group: Value) -> Result<Value, CoreError> {
    let of = id(&group).ok_or(CoreError::Internal)?;
    let mut answer = Map::new();
    let spared = |(name, value): &(String, String)| name == "list_consumers" && value == "false";
    if !ask.query.iter().any(spared) {
        let members = Members {
            of: Kind::ConsumerGroup,
            key: of.to_string(),
        };
        let consumers = members.all(ask, of).await?;
        answer.insert("consumers".to_owned(), Value::Array(consumers));
    }
    let plugins = Collection {
        kind: Kind::Plugin,
        parent: Some(Parent {
            kind: Kind::ConsumerGroup,
            field: field(Kind::ConsumerGroup),
            key: of.to_string(),
        }),
    };
    let plugins = read::all(ask, &plugins, of).await?;
    answer.insert("plugins".to_owned(), Value::Array(plugins));
    answer.insert("consumer_group".to_owned(), group);
    Ok(Value::Object(answer))
}

/// The field of a membership that refers to an entity of this kind.
fn field(kind: Kind) -> &'static str {
    let fields = &schema::of(Kind::ConsumerGroupMember).record.fields;
    let of = |field: &&schema::Field| field.name == kind.singular();
    fields.iter().find(of).map_or("", |field| field.name)
}
