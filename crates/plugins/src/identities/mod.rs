//! Consumers and their credentials, indexed for the authentication plugins.

mod edit;
mod jwt;

use std::sync::Arc;

use ahash::AHashMap;
use http::{HeaderName, HeaderValue};
use sallyport_model::Kind;
use sallyport_model::entities::{self, ConfigTable, Foreign};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::exchange::Credential;
use crate::fields::Fields;
use crate::ids::Ids;

pub use edit::IdentityEdits;
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
#[derive(Clone)]
struct Key {
    owner: Owner,
    /// Milliseconds since 1970; it is good before that.
    expires_ms: Option<u64>,
}

/// A password as it is stored, and whose it is.
#[derive(Clone, Debug)]
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
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) owner: Owner,
    pub(crate) secret: Box<[u8]>,
}

/// All consumers and credentials of one configuration. A copy shares what does not change.
#[derive(Clone, Default)]
pub struct Identities {
    people: Ids<Arc<Person>>,
    usernames: Ids<Uuid, Box<str>>,
    keys: Ids<Key, Box<[u8]>>,
    passwords: Ids<Password, Box<[u8]>>,
    signers: Ids<Signer, Box<[u8]>>,
    tokens: Ids<TokenKey, Box<str>>,
    /// What belongs to a consumer.
    held: Ids<Held, (Kind, Uuid)>,
    groups: Ids<Group>,
}

/// A consumer with what it was made of.
#[derive(Clone)]
struct Person {
    entity: entities::Consumer,
    /// Its groups: id of the membership, and name.
    acls: Vec<(Uuid, Box<str>)>,
    /// Its consumer groups: id of the membership, and of the group.
    members: Vec<(Uuid, Uuid)>,
    credentials: Vec<(Kind, Uuid)>,
    made: Arc<Consumer>,
}

/// Something that belongs to a consumer.
#[derive(Clone)]
struct Held {
    consumer: Uuid,
    /// What a credential is looked up by; empty for memberships.
    text: Box<[u8]>,
}

/// A consumer group.
#[derive(Clone)]
struct Group {
    name: Box<str>,
    /// Its consumers, with how many memberships each has.
    members: Ids<u32>,
}

impl Group {
    fn join(&mut self, consumer: Uuid) {
        let before = self.members.get(&consumer).copied().unwrap_or_default();
        self.members.insert(consumer, before + 1);
    }

    fn leave(&mut self, consumer: Uuid) {
        match self.members.get(&consumer).copied() {
            Some(before @ 2..) => self.members.insert(consumer, before - 1),
            _ => _ = self.members.remove(&consumer),
        }
    }
}

impl Person {
    fn new(entity: &entities::Consumer) -> Person {
        Person {
            entity: entity.clone(),
            acls: Vec::new(),
            members: Vec::new(),
            credentials: Vec::new(),
            made: Arc::new(Consumer::new(entity, Vec::new(), Vec::new())),
        }
    }

    /// Makes the consumer of what is known of it.
    fn make(&mut self, groups: &Ids<Group>) {
        if self.acls.is_empty() && self.members.is_empty() {
            self.made = Arc::new(Consumer::new(&self.entity, Vec::new(), Vec::new()));
            return;
        }
        let names = self.acls.iter().map(|(_, name)| name.clone()).collect();
        let name = |id: &Uuid| groups.get(id).map(|group| &*group.name);
        let mut of: Vec<Uuid> = self.members.iter().map(|(_, group)| *group).collect();
        of.sort_unstable_by_key(|id| (name(id), *id));
        self.made = Arc::new(Consumer::new(&self.entity, names, of));
    }
}

impl Identities {
    /// Indexes a configuration. Credentials of unknown consumers are left out; the configuration
    /// was checked for them before. The time of keys that do not say when they were made begins
    /// at `loaded_s`, in seconds since 1970.
    pub fn new(table: &ConfigTable, loaded_s: u64) -> Identities {
        let group = |group: &entities::ConsumerGroup| {
            let name = group.name.as_str().into();
            let members = Ids::default();
            (group.id, Group { name, members })
        };
        let mut groups: AHashMap<Uuid, Group> = table.consumer_groups.iter().map(group).collect();
        let person = |consumer: &entities::Consumer| (consumer.id, Person::new(consumer));
        let mut people: AHashMap<Uuid, Person> = table.consumers.iter().map(person).collect();
        let mut held = Vec::new();
        let mut holds = |kind: Kind, id: Uuid, Foreign(consumer): Foreign, text: &str| {
            let text = text.as_bytes().into();
            held.push(((kind, id), Held { consumer, text }));
        };
        for acl in &table.acls {
            if let Some(person) = people.get_mut(&acl.consumer.0) {
                person.acls.push((acl.id, acl.group.as_str().into()));
                holds(Kind::Acl, acl.id, acl.consumer, "");
            }
        }
        for member in &table.consumer_group_consumers {
            let group = groups.get_mut(&member.consumer_group.0);
            if let (Some(group), Some(person)) = (group, people.get_mut(&member.consumer.0)) {
                group.join(member.consumer.0);
                person.members.push((member.id, member.consumer_group.0));
                holds(Kind::ConsumerGroupMember, member.id, member.consumer, "");
            }
        }
        let groups: Ids<Group> = groups.into_iter().collect();
        let grouped = people.values_mut();
        grouped
            .filter(|person| !person.acls.is_empty() || !person.members.is_empty())
            .for_each(|person| person.make(&groups));
        let mut owner = |kind: Kind, id: Uuid, consumer: Foreign, text: &str| {
            let person = people.get_mut(&consumer.0)?;
            person.credentials.push((kind, id));
            holds(kind, id, consumer, text);
            Some(owner(&person.made, kind, id, text))
        };
        let keys = table.keyauth_credentials.iter().filter_map(|key| {
            let owner = owner(Kind::KeyAuth, key.id, key.consumer, &key.key)?;
            Some((key.key.as_bytes().into(), Key::new(key, owner, loaded_s)))
        });
        let keys = keys.collect();
        let passwords = table.basicauth_credentials.iter().filter_map(|basic| {
            let owner = owner(Kind::BasicAuth, basic.id, basic.consumer, &basic.username)?;
            let password = Password::new(basic, owner);
            Some((basic.username.as_bytes().into(), password))
        });
        let passwords = passwords.collect();
        let signers = table.hmacauth_credentials.iter().filter_map(|hmac| {
            let owner = owner(Kind::HmacAuth, hmac.id, hmac.consumer, &hmac.username)?;
            Some((hmac.username.as_bytes().into(), Signer::new(hmac, owner)))
        });
        let signers = signers.collect();
        let tokens = table.jwt_secrets.iter().filter_map(|jwt| {
            let owner = owner(Kind::Jwt, jwt.id, jwt.consumer, &jwt.key)?;
            Some((jwt.key.as_str().into(), TokenKey::new(jwt, owner)))
        });
        let tokens = tokens.collect();
        let usernames = table.consumers.iter();
        let usernames = usernames
            .filter_map(|consumer| Some((consumer.username.as_deref()?.into(), consumer.id)));
        Identities {
            usernames: usernames.collect(),
            keys,
            passwords,
            signers,
            tokens,
            held: held.into_iter().collect(),
            groups,
            people: people
                .into_iter()
                .map(|(id, person)| (id, Arc::new(person)))
                .collect(),
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
    pub fn consumer_by_id(&self, id: Uuid) -> Option<&Arc<Consumer>> {
        self.people.get(&id).map(|person| &person.made)
    }

    /// Whether there is a consumer group with this id.
    pub fn has_group(&self, id: Uuid) -> bool {
        self.groups.get(&id).is_some()
    }

    /// The consumer with this id or user name, as the `anonymous` settings name it.
    pub fn consumer(&self, id_or_username: &str) -> Option<&Arc<Consumer>> {
        let id = match Uuid::parse_str(id_or_username) {
            Ok(id) => id,
            Err(_) => *self.usernames.get(id_or_username)?,
        };
        self.consumer_by_id(id)
    }
}

impl Key {
    fn new(key: &entities::KeyAuth, owner: Owner, loaded_s: u64) -> Key {
        let ttl = key.ttl.filter(|ttl| *ttl > 0);
        let made_s = key.created_at.unwrap_or(loaded_s);
        let expires_ms = ttl.map(|ttl| made_s.saturating_add(ttl).saturating_mul(1_000));
        Key { owner, expires_ms }
    }
}

impl Password {
    fn new(basic: &entities::BasicAuth, owner: Owner) -> Password {
        Password {
            owner,
            digest: digest(&basic.password),
        }
    }
}

impl Signer {
    fn new(hmac: &entities::HmacAuth, owner: Owner) -> Signer {
        Signer {
            owner,
            secret: hmac.secret.as_bytes().into(),
        }
    }
}

/// Whose a credential is. A key is told to nobody, so its id stands for it.
fn owner(consumer: &Arc<Consumer>, kind: Kind, id: Uuid, text: &str) -> Owner {
    let named = match kind {
        Kind::KeyAuth => None,
        _ => text_value(text),
    };
    Owner {
        consumer: consumer.clone(),
        credential: Credential {
            id,
            identifier: named.unwrap_or_else(|| uuid_value(id)),
        },
    }
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
