//! Consumers and their credentials, indexed for the authentication plugins.

use std::sync::Arc;

use ahash::AHashMap;
use http::{HeaderName, HeaderValue};
use sallyport_model::entities::{self, ConfigTable};
use uuid::Uuid;

use crate::exchange::Credential;
use crate::fields::Fields;

const ID: HeaderName = HeaderName::from_static("x-consumer-id");
const CUSTOM_ID: HeaderName = HeaderName::from_static("x-consumer-custom-id");
const USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
const CREDENTIAL: HeaderName = HeaderName::from_static("x-credential-identifier");
const ANONYMOUS: HeaderName = HeaderName::from_static("x-anonymous-consumer");

/// A consumer, with its header values made once.
#[derive(Debug)]
pub struct Consumer {
    /// The entity.
    pub id: Uuid,
    id_value: HeaderValue,
    username: Option<HeaderValue>,
    custom_id: Option<HeaderValue>,
}

impl Consumer {
    fn new(consumer: &entities::Consumer) -> Consumer {
        let value = |text: &Option<String>| {
            text.as_deref()
                .and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok())
        };
        Consumer {
            id: consumer.id,
            id_value: uuid_value(consumer.id),
            username: value(&consumer.username),
            custom_id: value(&consumer.custom_id),
        }
    }
}

/// Who a key belongs to.
#[derive(Debug)]
pub struct KeyOwner {
    /// The consumer.
    pub consumer: Arc<Consumer>,
    /// The key's entity.
    pub credential: Credential,
}

/// All consumers and credentials of one configuration.
#[derive(Debug, Default)]
pub struct Identities {
    consumers: AHashMap<Uuid, Arc<Consumer>>,
    usernames: AHashMap<String, Uuid>,
    keys: AHashMap<Box<[u8]>, KeyOwner>,
}

impl Identities {
    /// Indexes a configuration. Credentials of unknown consumers are left out; the configuration
    /// was checked for them before.
    pub fn new(table: &ConfigTable) -> Identities {
        let consumers: AHashMap<_, _> = table
            .consumers
            .iter()
            .map(|consumer| (consumer.id, Arc::new(Consumer::new(consumer))))
            .collect();
        let usernames = table
            .consumers
            .iter()
            .filter_map(|consumer| Some((consumer.username.clone()?, consumer.id)))
            .collect();
        let keys = table
            .keyauth_credentials
            .iter()
            .filter_map(|key| {
                let consumer = consumers.get(&key.consumer.0)?.clone();
                let credential = Credential {
                    id: key.id,
                    identifier: uuid_value(key.id),
                };
                Some((
                    key.key.as_bytes().into(),
                    KeyOwner {
                        consumer,
                        credential,
                    },
                ))
            })
            .collect();
        Identities {
            consumers,
            usernames,
            keys,
        }
    }

    /// Whose key this is.
    pub fn key(&self, key: &[u8]) -> Option<&KeyOwner> {
        self.keys.get(key)
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

/// Tells the upstream who calls, and removes what the client claimed about it.
///
/// `credential` is `None` for an anonymous consumer.
pub(crate) fn tell_upstream(
    headers: &mut Fields,
    consumer: &Consumer,
    credential: Option<&Credential>,
) {
    headers.set(&ID, &consumer.id_value);
    set(headers, &CUSTOM_ID, consumer.custom_id.as_ref());
    set(headers, &USERNAME, consumer.username.as_ref());
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

fn set(headers: &mut Fields, name: &HeaderName, value: Option<&HeaderValue>) {
    match value {
        Some(value) => headers.set(name, value),
        None => headers.remove(name),
    }
}

fn uuid_value(id: Uuid) -> HeaderValue {
    HeaderValue::from_str(&id.to_string()).expect("a UUID is ASCII")
}
