//! Identities out of those before and a few entities: what it costs depends on these.

use std::collections::BTreeSet;
use std::sync::Arc;

use sallyport_model::Kind;
use sallyport_model::entities::{
    Acl, BasicAuth, Consumer, ConsumerGroup, ConsumerGroupMember, Foreign, HmacAuth, Jwt, KeyAuth,
};
use serde_json::Value;
use uuid::Uuid;

use crate::ids::Ids;

use super::{Group, Held, Identities, Key, Owner, Password, Person, Signer, TokenKey, owner};

/// Entities that are new or other than before, and those that are gone.
#[derive(Default)]
pub struct IdentityEdits {
    consumers: Vec<Consumer>,
    groups: Vec<ConsumerGroup>,
    parts: Vec<(Kind, Uuid, Part)>,
    gone: Vec<(Kind, Uuid)>,
}

/// What belongs to a consumer.
enum Part {
    Member(ConsumerGroupMember),
    Acl(Acl),
    Key(KeyAuth),
    Basic(BasicAuth),
    Hmac(HmacAuth),
    Jwt(Box<Jwt>),
}

impl Part {
    fn consumer(&self) -> Uuid {
        let Foreign(id) = match self {
            Part::Member(it) => it.consumer,
            Part::Acl(it) => it.consumer,
            Part::Key(it) => it.consumer,
            Part::Basic(it) => it.consumer,
            Part::Hmac(it) => it.consumer,
            Part::Jwt(it) => it.consumer,
        };
        id
    }

    /// What it is looked up by.
    fn text(&self) -> &str {
        match self {
            Part::Member(_) | Part::Acl(_) => "",
            Part::Key(it) => &it.key,
            Part::Basic(it) => &it.username,
            Part::Hmac(it) => &it.username,
            Part::Jwt(it) => &it.key,
        }
    }
}

impl IdentityEdits {
    /// Whether entities of this kind are of consumers.
    pub fn takes(kind: Kind) -> bool {
        matches!(
            kind,
            Kind::Consumer
                | Kind::ConsumerGroup
                | Kind::ConsumerGroupMember
                | Kind::Acl
                | Kind::KeyAuth
                | Kind::BasicAuth
                | Kind::HmacAuth
                | Kind::Jwt
        )
    }

    /// Adds a flat entity that passed the schema; `false` if it is of another kind.
    #[must_use]
    pub fn put(&mut self, kind: Kind, id: Uuid, value: Value) -> bool {
        fn read<T: serde::de::DeserializeOwned>(value: Value) -> Option<T> {
            serde_json::from_value(value).ok()
        }
        let part = match kind {
            Kind::Consumer => {
                return read(value).map(|it| self.consumers.push(it)).is_some();
            }
            Kind::ConsumerGroup => {
                return read(value).map(|it| self.groups.push(it)).is_some();
            }
            Kind::ConsumerGroupMember => read(value).map(Part::Member),
            Kind::Acl => read(value).map(Part::Acl),
            Kind::KeyAuth => read(value).map(Part::Key),
            Kind::BasicAuth => read(value).map(Part::Basic),
            Kind::HmacAuth => read(value).map(Part::Hmac),
            Kind::Jwt => read(value).map(|it| Part::Jwt(Box::new(it))),
            _ => None,
        };
        part.map(|part| self.parts.push((kind, id, part))).is_some()
    }

    /// Adds one that is gone.
    pub fn remove(&mut self, kind: Kind, id: Uuid) {
        self.gone.push((kind, id));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.consumers.is_empty()
            && self.groups.is_empty()
            && self.parts.is_empty()
            && self.gone.is_empty()
    }
}

impl Identities {
    /// These identities with some edits; `None` if they do not fit together, which a look at the
    /// whole configuration tells more about. `loaded_s` as for [`new`](Identities::new).
    pub fn edited(&self, edits: &IdentityEdits, loaded_s: u64) -> Option<Identities> {
        let mut next = self.clone();
        let mut touched = BTreeSet::new();
        let mut groups = BTreeSet::new();
        for (kind, id) in &edits.gone {
            match kind {
                Kind::Consumer => {
                    let person = self.people.get(id);
                    let username = person.and_then(|it| it.entity.username.as_deref());
                    username.map(|username| next.usernames.remove(username));
                }
                Kind::ConsumerGroup => _ = groups.insert(*id),
                _ => touched.extend(next.drop_part(*kind, *id)),
            }
        }
        for consumer in &edits.consumers {
            next.put_consumer(consumer)?;
            touched.insert(consumer.id);
        }
        for group in &edits.groups {
            let before = next.groups.get(&group.id);
            // its place among the groups of its members is another
            if let Some(before) = before.filter(|it| *it.name != *group.name) {
                touched.extend(before.members.iter().map(|(id, _)| *id));
            }
            let members = before.map_or_else(Ids::default, |before| before.members.clone());
            let name = group.name.as_str().into();
            next.groups.insert(group.id, Group { name, members });
            groups.remove(&group.id);
        }
        for (kind, id, part) in &edits.parts {
            touched.extend(next.drop_part(*kind, *id));
            touched.insert(next.put_part(*kind, *id, part, loaded_s)?);
        }
        for id in groups {
            if !next.groups.remove(&id)?.members.is_empty() {
                return None;
            }
        }
        for (_, id) in edits
            .gone
            .iter()
            .filter(|(kind, _)| *kind == Kind::Consumer)
        {
            let person = next.people.remove(id)?;
            // what hung on it has to be gone as well
            let parts = [
                person.credentials.len(),
                person.acls.len(),
                person.members.len(),
            ];
            if parts.iter().any(|count| *count > 0) {
                return None;
            }
        }
        for id in touched {
            let Some(person) = next.people.get(&id) else {
                continue;
            };
            let mut person = Person::clone(person);
            person.make(&next.groups);
            for (kind, id) in &person.credentials {
                let text = next.held.get(&(*kind, *id))?.text.clone();
                next.own(*kind, &text, &person)?;
            }
            next.people.insert(id, Arc::new(person));
        }
        Some(next)
    }

    fn put_consumer(&mut self, consumer: &Consumer) -> Option<()> {
        let before = self.people.get(&consumer.id).cloned();
        let old = before.as_ref().and_then(|it| it.entity.username.as_deref());
        if let Some(old) = old {
            self.usernames.remove(old);
        }
        if let Some(username) = consumer.username.as_deref() {
            if self.usernames.get(username).is_some() {
                return None;
            }
            self.usernames.insert(username.into(), consumer.id);
        }
        let person = match before {
            Some(person) => Person {
                entity: consumer.clone(),
                ..Person::clone(&person)
            },
            None => Person::new(consumer),
        };
        self.people.insert(consumer.id, Arc::new(person));
        Some(())
    }

    /// Takes out what belongs to a consumer; the consumer, if there was anything.
    fn drop_part(&mut self, kind: Kind, id: Uuid) -> Option<Uuid> {
        let Held { consumer, text } = self.held.remove(&(kind, id))?;
        match kind {
            Kind::KeyAuth => _ = self.keys.remove(&text),
            Kind::BasicAuth => _ = self.passwords.remove(&text),
            Kind::HmacAuth => _ = self.signers.remove(&text),
            Kind::Jwt => _ = self.tokens.remove(std::str::from_utf8(&text).ok()?),
            _ => {}
        }
        let mut person = Person::clone(self.people.get(&consumer)?);
        match kind {
            Kind::Acl => person.acls.retain(|(own, _)| *own != id),
            Kind::ConsumerGroupMember => {
                let at = person.members.iter().position(|(own, _)| *own == id)?;
                let (_, group) = person.members.remove(at);
                let mut group_entry = self.groups.get(&group)?.clone();
                group_entry.leave(consumer);
                self.groups.insert(group, group_entry);
            }
            _ => person.credentials.retain(|own| *own != (kind, id)),
        }
        self.people.insert(consumer, Arc::new(person));
        Some(consumer)
    }

    /// Adds what belongs to a consumer, which is not there; the consumer.
    fn put_part(&mut self, kind: Kind, id: Uuid, part: &Part, loaded_s: u64) -> Option<Uuid> {
        let (consumer, text) = (part.consumer(), part.text());
        let mut person = Person::clone(self.people.get(&consumer)?);
        let bytes: Box<[u8]> = text.as_bytes().into();
        let owner = || owner(&person.made, kind, id, text);
        // of two with the same text one would be lost
        let is_new = match part {
            Part::Member(it) => {
                let mut group = self.groups.get(&it.consumer_group.0)?.clone();
                group.join(consumer);
                self.groups.insert(it.consumer_group.0, group);
                true
            }
            Part::Acl(_) => true,
            Part::Key(it) => {
                let free = self.keys.get(&bytes).is_none();
                self.keys
                    .insert(bytes.clone(), Key::new(it, owner(), loaded_s));
                free
            }
            Part::Basic(it) => {
                let free = self.passwords.get(&bytes).is_none();
                self.passwords
                    .insert(bytes.clone(), Password::new(it, owner()));
                free
            }
            Part::Hmac(it) => {
                let free = self.signers.get(&bytes).is_none();
                self.signers.insert(bytes.clone(), Signer::new(it, owner()));
                free
            }
            Part::Jwt(it) => {
                let free = self.tokens.get(text).is_none();
                self.tokens.insert(text.into(), TokenKey::new(it, owner()));
                free
            }
        };
        match part {
            Part::Member(it) => person.members.push((id, it.consumer_group.0)),
            Part::Acl(it) => {
                person.acls.push((id, it.group.as_str().into()));
                person.acls.sort_unstable_by_key(|(id, _)| *id);
            }
            _ => person.credentials.push((kind, id)),
        }
        self.people.insert(consumer, Arc::new(person));
        let text = bytes;
        self.held.insert((kind, id), Held { consumer, text });
        is_new.then_some(consumer)
    }

    /// The credential is of the consumer as it is now.
    fn own(&mut self, kind: Kind, text: &[u8], person: &Person) -> Option<()> {
        let own = |owner: &mut Owner| owner.consumer = person.made.clone();
        match kind {
            Kind::KeyAuth => {
                let mut it = self.keys.get(text)?.clone();
                own(&mut it.owner);
                self.keys.insert(text.into(), it);
            }
            Kind::BasicAuth => {
                let mut it = self.passwords.get(text)?.clone();
                own(&mut it.owner);
                self.passwords.insert(text.into(), it);
            }
            Kind::HmacAuth => {
                let mut it = self.signers.get(text)?.clone();
                own(&mut it.owner);
                self.signers.insert(text.into(), it);
            }
            _ => {
                let text = std::str::from_utf8(text).ok()?;
                let mut it = self.tokens.get(text)?.clone();
                own(&mut it.owner);
                self.tokens.insert(text.into(), it);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sallyport_model::entities::ConfigTable;
    use serde_json::json;

    use super::*;

    fn id(kind: u128, n: u8) -> Uuid {
        Uuid::from_u128(kind << 64 | u128::from(n))
    }

    /// Entities that may be there: by kind and number, with a variant.
    fn entity(kind: Kind, n: u8, variant: u8) -> Value {
        let consumer = id(1, (n + variant) % 3);
        match kind {
            Kind::Consumer => json!({"id": id(1, n), "username": format!("u{n}-{variant}")}),
            Kind::ConsumerGroup => json!({"id": id(2, n), "name": format!("g{n}-{variant}")}),
            Kind::ConsumerGroupMember => {
                json!({"id": id(3, n), "consumer": consumer, "consumer_group": id(2, n % 2)})
            }
            Kind::Acl => {
                json!({"id": id(4, n), "consumer": consumer, "group": format!("a{n}{variant}")})
            }
            Kind::KeyAuth => {
                json!({"id": id(5, n), "consumer": consumer, "key": format!("k{n}{variant}")})
            }
            Kind::BasicAuth => json!({"id": id(6, n), "consumer": consumer,
                "username": format!("b{n}{variant}"), "password": "00".repeat(20)}),
            Kind::HmacAuth => json!({"id": id(7, n), "consumer": consumer,
                "username": format!("h{n}{variant}"), "secret": "s"}),
            _ => json!({"id": id(8, n), "consumer": consumer, "key": format!("j{n}{variant}"),
                "secret": "s", "algorithm": "HS256"}),
        }
    }

    const KINDS: [Kind; 8] = [
        Kind::Consumer,
        Kind::ConsumerGroup,
        Kind::ConsumerGroupMember,
        Kind::Acl,
        Kind::KeyAuth,
        Kind::BasicAuth,
        Kind::HmacAuth,
        Kind::Jwt,
    ];

    type Model = std::collections::BTreeMap<(usize, u8), u8>;

    /// Everything that a request can find out, as text; `None` if something hangs in the air.
    fn table(model: &Model) -> Option<ConfigTable> {
        let has = |kind: usize, n: u8| model.contains_key(&(kind, n));
        let mut table = json!({});
        for ((kind, n), variant) in model {
            let hangs = *kind >= 2 && !has(0, (n + variant) % 3) || *kind == 2 && !has(1, n % 2);
            if hangs {
                return None;
            }
            let list = &mut table[KINDS[*kind].table()];
            if list.is_null() {
                *list = json!([]);
            }
            list.as_array_mut()?
                .push(entity(KINDS[*kind], *n, *variant));
        }
        serde_json::from_value(table).ok()
    }

    fn shown(all: &Identities) -> Vec<String> {
        let consumer = |it: &super::super::Consumer| {
            format!(
                "{:?} {:?} {:?}",
                it.shown_as(),
                it.groups(),
                it.consumer_groups()
            )
        };
        let mut texts = Vec::new();
        for n in 0..3 {
            let by_id = all.consumer_by_id(id(1, n)).map(|it| consumer(it));
            texts.push(format!("{by_id:?} {}", all.has_group(id(2, n))));
            for variant in 0..3 {
                let name = all
                    .consumer(&format!("u{n}-{variant}"))
                    .map(|it| consumer(it));
                let key = format!("k{n}{variant}");
                let owners = [
                    all.key(key.as_bytes(), 0),
                    all.password(format!("b{n}{variant}").as_bytes())
                        .map(|it| &it.owner),
                    all.signer(format!("h{n}{variant}").as_bytes())
                        .map(|it| &it.owner),
                    all.token_key(&format!("j{n}{variant}")).map(|it| &it.owner),
                ];
                let owners = owners.map(|it| {
                    it.map(|it| format!("{} {:?}", consumer(&it.consumer), it.credential))
                });
                texts.push(format!("{name:?} {owners:?}"));
            }
        }
        texts
    }

    proptest! {
        #[test]
        fn edits_lead_to_what_the_whole_would_be(
            rounds in proptest::collection::vec(proptest::collection::vec(
                (0usize..8, 0u8..3, proptest::option::weighted(0.8, 0u8..3)), 1..5), 1..12)
        ) {
            let mut model = Model::new();
            let mut all = Identities::default();
            for round in rounds {
                let mut next = model.clone();
                for (kind, n, variant) in round {
                    match variant {
                        Some(variant) => _ = next.insert((kind, n), variant),
                        None => _ = next.remove(&(kind, n)),
                    }
                }
                let Some(whole) = table(&next) else { continue };
                let mut edits = IdentityEdits::default();
                for (kind, n) in model.keys().filter(|key| !next.contains_key(key)) {
                    let kind_id = 1 + *kind as u128;
                    edits.remove(KINDS[*kind], id(kind_id, *n));
                }
                for ((kind, n), variant) in &next {
                    if model.get(&(*kind, *n)) != Some(variant) {
                        let kind_id = 1 + *kind as u128;
                        let value = entity(KINDS[*kind], *n, *variant);
                        prop_assert!(edits.put(KINDS[*kind], id(kind_id, *n), value));
                    }
                }
                let expected = Identities::new(&whole, 0);
                let edited = all.edited(&edits, 0).expect("it fits together");
                prop_assert_eq!(shown(&edited), shown(&expected));
                all = edited;
                model = next;
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_whole() {
        let table = json!({"consumers": [{"id": id(1, 0), "username": "a"}],
            "keyauth_credentials": [{"id": id(5, 0), "consumer": id(1, 0), "key": "k"}]});
        let all = Identities::new(&serde_json::from_value(table).unwrap(), 0);
        let put = |kind: Kind, of: Uuid, value: Value| {
            let mut edits = IdentityEdits::default();
            assert!(edits.put(kind, of, value));
            all.edited(&edits, 0).is_some()
        };
        let key = |n: u8, consumer: u8, key: &str| json!({"id": id(5, n), "consumer": id(1, consumer), "key": key});
        assert!(put(Kind::KeyAuth, id(5, 1), key(1, 0, "other")));
        assert!(
            !put(Kind::KeyAuth, id(5, 1), key(1, 0, "k")),
            "two with one key"
        );
        assert!(!put(Kind::KeyAuth, id(5, 1), key(1, 9, "x")), "of nobody");
        let twin = json!({"id": id(1, 1), "username": "a"});
        assert!(!put(Kind::Consumer, id(1, 1), twin), "two with one name");
        let mut edits = IdentityEdits::default();
        edits.remove(Kind::Consumer, id(1, 0));
        assert!(all.edited(&edits, 0).is_none(), "its key stays");
        edits.remove(Kind::KeyAuth, id(5, 0));
        let none = all.edited(&edits, 0).unwrap();
        assert!(none.key(b"k", 0).is_none() && none.consumer("a").is_none());
        assert!(all.key(b"k", 0).is_some(), "the one before is as it was");
    }
}
