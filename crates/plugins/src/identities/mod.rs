//! Consumers and their credentials, indexed for the authentication plugins.

mod jwt;

use std::sync::Arc;

use ahash::AHashMap;
use http::{HeaderName, HeaderValue};
use sallyport_model::entities::{self, ConfigTable, Foreign};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::exchange::Credential;
use crate::fields::Fields;

pub(crate) use jwt::{Failure, Signed, TokenKey};

const ID: HeaderName = HeaderName::from_static("x-consumer-id");
const CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
const USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
const CREDENTIAL: HeaderName = HeaderName::from_static("x-credential-identifier");
const ANONYMOUS: HeaderName = HeaderName::from_static("x-anonymous-consumer");

/// A consumer, with its header lines made once.
#[derive(Debug)]
pub struct Consumer {
    /// The entity.
    pub id: Uuid,
    /// The lines that tell an upstream its id, custom id and user name, as far as it has them.
    lines: Fields,
    groups: Vec<Box<str>>,
    /// All groups, as the upstream is told.
    groups_value: Option<HeaderValue>,
    /// Ids of its consumer groups, by their names.
    consumer_groups: Vec<Uuid>,
}

impl Consumer {
    fn new(
        consumer: &entities::Consumer,
        groups: Vec<Box<str>>,
        consumer_groups: Vec<Uuid>,
    ) -> Consumer {
        let mut lines = Fields::new();
        lines.append(&ID, &uuid_value(consumer.id));
        for (name, text) in [
            (&CUSTOM_ID, &consumer.custom_id),
            (&USERNAME, &consumer.username),
        ] {
            if let Some(value) = text.as_deref().and_then(text_value) {
                lines.append(name, &value);
            }
        }
        let groups_value = match groups.is_empty() {
            true => None,
            false => text_value(&groups.join(", ")),
        };
        Consumer {
            id: consumer.id,
            lines: lines.shrunk(),
            groups,
            groups_value,
            consumer_groups,
        }
    }

    /// Ids of the consumer groups that it is in, in the order of the groups' names.
    pub fn consumer_groups(&self) -> &[Uuid] {
        &self.consumer_groups
    }

    /// The names of its groups.
    pub fn groups(&self) -> &[Box<str>] {
        &self.groups
    }

    /// Its groups as a header has them, with comma and space between; `None` without groups.
    pub fn groups_value(&self) -> Option<&HeaderValue> {
        self.groups_value.as_ref()
    }

    /// What names it for people: user name, else custom id, else id.
    pub(crate) fn shown_as(&self) -> HeaderValue {
        let named = [&USERNAME, &CUSTOM_ID]
            .into_iter()
            .find_map(|name| HeaderValue::from_bytes(self.lines.get(name)?).ok());
        named.unwrap_or_else(|| uuid_value(self.id))
    }
}

/// Who a credential belongs to.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The consumer.
    pub consumer: Arc<Consumer>,
    /// The credential's entity.
    pub credential: Credential,
}

/// Whose key it is, and until when.
struct Key {
    owner: Owner,
    /// Milliseconds since 1970; it is good before that.
    expires_ms: Option<u64>,
}

/// A password as it is stored, and whose it is.
#[derive(Debug)]
pub(crate) struct Password {
    pub(crate) owner: Owner,
    /// The hash; `None` if what the configuration has is none, which matches no password.
    digest: Option<[u8; 20]>,
}

impl Password {
    /// Whether this is the password. Takes the same time wherever they differ.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        let given = sallyport_model::basic_auth::digest(self.owner.consumer.id, given);
        self.digest
            .is_some_and(|stored| stored.ct_eq(&given).into())
    }
}

/// A secret that signs requests, and whose it is.
pub(crate) struct Signer {
    pub(crate) owner: Owner,
    pub(crate) secret: Box<[u8]>,
}

/// All consumers and credentials of one configuration.
#[derive(Default)]
pub struct Identities {
    consumers: AHashMap<Uuid, Arc<Consumer>>,
    usernames: AHashMap<String, Uuid>,
    keys: AHashMap<Box<[u8]>, Key>,
    passwords: AHashMap<Box<[u8]>, Password>,
    signers: AHashMap<Box<[u8]>, Signer>,
    tokens: AHashMap<Box<str>, TokenKey>,
}

impl Identities {
    /// Indexes a configuration. Credentials of unknown consumers are left out; the configuration
    /// was checked for them before. The time of keys that do not say when they were made begins
    /// at `loaded_s`, in seconds since 1970.
    pub fn new(table: &ConfigTable, loaded_s: u64) -> Identities {
        let mut groups: AHashMap<Uuid, Vec<Box<str>>> = AHashMap::new();
        for acl in &table.acls {
            let of = groups.entry(acl.consumer.0).or_default();
            of.push(acl.group.as_str().into());
        }
        let mut members = consumer_groups(table);
        let mut consumers = AHashMap::with_capacity(table.consumers.len());
        for consumer in &table.consumers {
            let groups = groups.remove(&consumer.id).unwrap_or_default();
            let in_groups = members.remove(&consumer.id).unwrap_or_default();
            let consumer = Consumer::new(consumer, groups, in_groups);
            consumers.insert(consumer.id, Arc::new(consumer));
        }
        let usernames = table
            .consumers
            .iter()
            .filter_map(|consumer| Some((consumer.username.clone()?, consumer.id)))
            .collect();
        let owner = |consumer: Foreign, id: Uuid, identifier: Option<&str>| {
            let named = identifier.and_then(text_value);
            Some(Owner {
                consumer: consumers.get(&consumer.0)?.clone(),
                credential: Credential {
                    id,
                    identifier: named.unwrap_or_else(|| uuid_value(id)),
                },
            })
        };
        let keys = table.keyauth_credentials.iter().filter_map(|key| {
            let owner = owner(key.consumer, key.id, None)?;
            let ttl = key.ttl.filter(|ttl| *ttl > 0);
            let made_s = key.created_at.unwrap_or(loaded_s);
            let expires_ms = ttl.map(|ttl| made_s.saturating_add(ttl).saturating_mul(1_000));
            Some((key.key.as_bytes().into(), Key { owner, expires_ms }))
        });
        let passwords = table.basicauth_credentials.iter().filter_map(|basic| {
            let password = Password {
                owner: owner(basic.consumer, basic.id, Some(&basic.username))?,
                digest: digest(&basic.password),
            };
            Some((basic.username.as_bytes().into(), password))
        });
        let signers = table.hmacauth_credentials.iter().filter_map(|hmac| {
            let signer = Signer {
                owner: owner(hmac.consumer, hmac.id, Some(&hmac.username))?,
                secret: hmac.secret.as_bytes().into(),
            };
            Some((hmac.username.as_bytes().into(), signer))
        });
        let tokens = table.jwt_secrets.iter().filter_map(|jwt| {
            let owner = owner(jwt.consumer, jwt.id, Some(&jwt.key))?;
            Some((jwt.key.as_str().into(), TokenKey::new(jwt, owner)))
        });
        Identities {
            usernames,
            keys: keys.collect(),
            passwords: passwords.collect(),
            signers: signers.collect(),
            tokens: tokens.collect(),
            consumers,
        }
    }

    /// Whose key this is, if its time is not over at `now_ms`, in milliseconds since 1970.
    pub fn key(&self, key: &[u8], now_ms: u64) -> Option<&Owner> {
        let key = self.keys.get(key)?;
        let is_good = key.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms);
        is_good.then_some(&key.owner)
    }

    /// The password of a user of `basic-auth`.
    pub(crate) fn password(&self, username: &[u8]) -> Option<&Password> {
        self.passwords.get(username)
    }

    /// The secret of a user of `hmac-auth`.
    pub(crate) fn signer(&self, username: &[u8]) -> Option<&Signer> {
        self.signers.get(username)
    }

    /// What verifies the tokens that name this key.
    pub(crate) fn token_key(&self, key: &str) -> Option<&TokenKey> {
        self.tokens.get(key)
    }

    /// The consumer with this id.
    pub(crate) fn consumer_by_id(&self, id: Uuid) -> Option<&Arc<Consumer>> {
        self.consumers.get(&id)
    }

    /// The consumer with this id or user name, as the `anonymous` settings name it.
    pub fn consumer(&self, id_or_username: &str) -> Option<&Arc<Consumer>> {
        let id = match Uuid::parse_str(id_or_username) {
            Ok(id) => id,
            Err(_) => *self.usernames.get(id_or_username)?,
        };
        self.consumers.get(&id)
    }
}

/// The consumer groups of each consumer, in the order of the groups' names.
fn consumer_groups(table: &ConfigTable) -> AHashMap<Uuid, Vec<Uuid>> {
    let mut groups: Vec<_> = table.consumer_groups.iter().collect();
    groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let place = |(at, group): (usize, &&entities::ConsumerGroup)| (group.id, at);
    let places: AHashMap<Uuid, usize> = groups.iter().enumerate().map(place).collect();
    let mut members: AHashMap<Uuid, Vec<Uuid>> = AHashMap::new();
    for member in &table.consumer_group_consumers {
        if places.contains_key(&member.consumer_group.0) {
            let of = members.entry(member.consumer.0).or_default();
            of.push(member.consumer_group.0);
        }
    }
    for of in members.values_mut() {
        of.sort_unstable_by_key(|group| places[group]);
    }
    members
}

/// Tells the upstream who calls, and removes what the client claimed about it.
///
/// `credential` is `None` for an anonymous consumer.
pub(crate) fn tell_upstream(
    headers: &mut Fields,
    consumer: &Consumer,
    credential: Option<&Credential>,
) {
    headers.remove(&CUSTOM_ID);
    headers.remove(&USERNAME);
    headers.set_all(&consumer.lines);
    set(
        headers,
        &CREDENTIAL,
        credential.map(|credential| &credential.identifier),
    );
    match credential {
        Some(_) => headers.remove(&ANONYMOUS),
        None => headers.set(&ANONYMOUS, &HeaderValue::from_static("true")),
    }
}

/// Makes this the only line of its name, or removes what there is.
pub(crate) fn set(headers: &mut Fields, name: &HeaderName, value: Option<&HeaderValue>) {
    match value {
        Some(value) => headers.set(name, value),
        None => headers.remove(name),
    }
}

/// Twenty bytes out of their hexadecimal form.
fn digest(text: &str) -> Option<[u8; 20]> {
    let mut bytes = [0; 20];
    if text.len() != 40 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

fn text_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

pub(crate) fn uuid_value(id: Uuid) -> HeaderValue {
    HeaderValue::from_str(&id.to_string()).expect("a UUID is ASCII")
}
