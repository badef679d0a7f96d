//! Lists as Lua's JSON writes them: one without members comes as an empty object.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A list, or `{}` or `null` for an empty one; for `#[serde(deserialize_with = …)]`.
///
/// # Errors
/// Anything else, or a member that is no `T`.
pub(super) fn lua_list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(List(PhantomData))
}

struct List<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = list.next_element()? {
            all.push(member);
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<T>, A::Error> {
        match map.next_key::<String>()? {
            None => Ok(Vec::new()),
            Some(key) => Err(A::Error::custom(format!(
                "an object with {key:?} where a list was expected"
            ))),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    struct Holder {
        #[serde(default, deserialize_with = "lua_list")]
        list: Vec<Box<RawValue>>,
    }

    #[test]
    fn an_empty_list_may_be_an_empty_object() {
        let read = |text: &str| serde_json::from_str::<Holder>(text).map(|it| it.list.len());
        for (text, members) in [
            (r#"{"list":[]}"#, 0),
            (r#"{"list":{}}"#, 0),
            (r#"{"list":null}"#, 0),
            ("{}", 0),
            (r#"{"list":[{"a":1},2]}"#, 2),
        ] {
            assert_eq!(read(text).unwrap(), members, "{text}");
        }
        for text in [r#"{"list":{"1":2}}"#, r#"{"list":7}"#, r#"{"list":"x"}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
