//! The file as it is written, with the place of every value.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::Spanned;

/// A value and where it is.
pub(super) type At<T> = Spanned<T>;

#[derive(serde::Deserialize)]
pub(super) struct Raw {
    pub(super) port: Option<At<i64>>,
    pub(super) hostname: Option<At<String>>,
    pub(super) tls: Option<At<RawTls>>,
    pub(super) cluster: Option<At<RawCluster>>,
    pub(super) redis: Option<At<RawRedis>>,
    pub(super) buckets: Option<Entries<RawLimit>>,
}

/// Only the names of what is at the top of a file.
pub(super) type Names = Entries<IgnoredAny>;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) certificate: String,
    pub(super) key: String,
    #[serde(default)]
    pub(super) required: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCluster {
    pub(super) node: At<String>,
    pub(super) answer_ms: Option<At<i64>>,
    pub(super) nodes: Entries<String>,
    pub(super) ca: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRedis {
    pub(super) address: At<String>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    #[serde(default)]
    pub(super) database: u32,
    pub(super) ca: Option<String>,
    pub(super) answer_ms: Option<At<i64>>,
}

/// A bucket type or an override: they have nearly everything in common.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimit {
    pub(super) size: Option<At<i64>>,
    pub(super) per_second: Option<At<i64>>,
    pub(super) per_minute: Option<At<i64>>,
    pub(super) per_hour: Option<At<i64>>,
    pub(super) per_day: Option<At<i64>>,
    pub(super) per_interval: Option<At<i64>>,
    pub(super) interval: Option<At<i64>>,
    pub(super) unlimited: Option<At<bool>>,
    pub(super) fixed_window: Option<At<bool>>,
    pub(super) when_unreachable: Option<At<String>>,
    /// For people.
    #[serde(rename = "purpose")]
    pub(super) _purpose: Option<IgnoredAny>,
    #[serde(rename = "match")]
    pub(super) pattern: Option<At<String>>,
    pub(super) until: Option<At<String>>,
    #[serde(rename = "override", alias = "overrides")]
    pub(super) exceptions: Option<Entries<RawLimit>>,
}

/// A map in the order of the file.
pub(super) struct Entries<T>(pub(super) Vec<(At<String>, At<T>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with what belongs to each")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(InOrder(PhantomData))
    }
}
