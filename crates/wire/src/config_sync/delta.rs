//! `kong.sync.v2`: changes of a configuration instead of the whole of it.
//!
//! A data plane asks by [`GET_DELTA`] for what leads from its version to the newest one. Our own
//! two sides agree on [`OWN`] as well: the control plane then sends what changed at once
//! ([`PUSH`]), every set of changes carries the hash of the configuration that it leads to, and
//! the data plane tells what it made of it ([`REPORT`]).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid_text::is_uuid;

use super::PluginVersion;
use super::lua_list::lua_list;
use super::rpc::{self, Message};
use crate::config_hash::{ConfigHash, ConfigHashError};

/// The first call of a data plane.
pub const HELLO: &str = "kong.meta.v1.hello";
/// Asks for changes since a version.
pub const GET_DELTA: &str = "kong.sync.v2.get_delta";
/// Says that there is a newer version.
pub const NOTIFY: &str = "kong.sync.v2.notify_new_version";
/// Says that a version could not be taken.
pub const NOTIFY_ERROR: &str = "kong.sync.v2.notify_validation_error";
/// Capability behind [`GET_DELTA`], [`NOTIFY`] and [`NOTIFY_ERROR`].
pub const SYNC: &str = "kong.sync.v2";
/// Capability of our own two sides.
pub const OWN: &str = "sallyport.sync.v1";
/// Changes that the control plane sends unasked.
pub const PUSH: &str = "sallyport.sync.v1.push";
/// What the data plane runs, and what it refused.
pub const REPORT: &str = "sallyport.sync.v1.report";

/// The name of a version: 32 visible ASCII characters, equal or not equal. Ours are `v02_`, twelve
/// hexadecimal digits of the control plane, and sixteen of its revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SyncVersion(ConfigHash);

impl SyncVersion {
    /// No version yet.
    pub const NONE: SyncVersion = SyncVersion(ConfigHash::ZERO);

    /// Revision `revision` of the control plane whose id begins with `plane` (48 bits count).
    pub fn new(plane: u64, revision: u64) -> SyncVersion {
        let text = format!("v02_{:012x}{revision:016x}", plane & 0xffff_ffff_ffff);
        SyncVersion(text.parse().expect("32 ASCII characters"))
    }

    /// The revision, if it is one of this control plane's.
    pub fn revision(&self, plane: u64) -> Option<u64> {
        let text = self.0.as_str().strip_prefix("v02_")?;
        let (own, revision) = text.split_at(12);
        let wanted = format!("{:012x}", plane & 0xffff_ffff_ffff);
        (own == wanted).then(|| u64::from_str_radix(revision, 16).ok())?
    }

    /// Whether this is an earlier revision of the control plane that `other` is of; `false` for
    /// versions of which that cannot be told.
    pub fn is_before(&self, other: &SyncVersion) -> bool {
        let plane = |version: &SyncVersion| {
            let digits = version.as_str().strip_prefix("v02_")?.get(..12)?;
            u64::from_str_radix(digits, 16).ok()
        };
        let Some(plane) = plane(other) else {
            return false;
        };
        match (self.revision(plane), other.revision(plane)) {
            (Some(own), Some(other)) => own < other,
            _ => false,
        }
    }

    /// The 32 characters.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl std::fmt::Display for SyncVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for SyncVersion {
    type Err = ConfigHashError;

    fn from_str(text: &str) -> Result<SyncVersion, ConfigHashError> {
        text.parse().map(SyncVersion)
    }
}

/// Setting in [`Hello::kong_conf`] with a node's labels, a list of `key:value`.
pub const DP_LABELS: &str = "cluster_dp_labels";

/// What a data plane says first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// What it can be asked, and asks itself: method names without their last part.
    #[serde(deserialize_with = "lua_list")]
    pub rpc_capabilities: Vec<String>,
    /// Must have [`rpc::ENCODING`].
    #[serde(deserialize_with = "lua_list")]
    pub rpc_frame_encodings: Vec<String>,
    /// Version, as in protocol v1.
    pub kong_version: String,
    /// Host name.
    pub kong_hostname: String,
    /// UUID.
    pub kong_node_id: String,
    /// Settings without secrets.
    pub kong_conf: Map<String, Value>,
    /// Its plugins; ours say so, Kong's do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<PluginVersion>,
    /// Its labels; ours say so here, Kong's in `kong_conf` ([`DP_LABELS`]), and both are read.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub labels: std::collections::BTreeMap<String, String>,
}

impl Hello {
    /// The frame: plain JSON.
    pub fn encode(&self) -> Vec<u8> {
        let params = rpc::raw(&[self]);
        let method = HELLO.to_owned();
        Message::Call {
            id: 1,
            method,
            params,
        }
        .to_json()
    }

    /// Reads the frame; the id to answer, and the hello.
    ///
    /// # Errors
    /// It is something else, with the reason.
    pub fn decode(frame: &[u8]) -> Result<(u64, Hello), String> {
        match Message::from_json(frame).map_err(|error| error.to_string())? {
            Message::Call { id, method, params } if method == HELLO => {
                let [hello]: [Hello; 1] = params_of(&params)?;
                let mut hello = hello;
                let listed = hello.kong_conf.get(DP_LABELS).and_then(Value::as_array);
                for pair in listed.into_iter().flatten().filter_map(Value::as_str) {
                    if let Some((key, value)) = pair.split_once(':') {
                        let entry = hello.labels.entry(key.to_owned());
                        entry.or_insert_with(|| value.to_owned());
                    }
                }
                match hello
                    .rpc_frame_encodings
                    .iter()
                    .any(|it| it == rpc::ENCODING)
                {
                    true => Ok((id, hello)),
                    false => Err(format!("no frame encoding {:?}", rpc::ENCODING)),
                }
            }
            _ => Err(format!("the first frame is no call of {HELLO:?}")),
        }
    }
}

/// What a control plane answers to the [`Hello`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HelloAnswer {
    /// What the control plane can be asked, and asks itself. Kong's writes `{}` when it has nothing
    /// for a data plane that is older than itself.
    #[serde(deserialize_with = "lua_list")]
    pub rpc_capabilities: Vec<String>,
    /// [`rpc::ENCODING`].
    pub rpc_frame_encoding: String,
}

impl HelloAnswer {
    /// The frame: plain JSON.
    pub fn encode(&self, id: u64) -> Vec<u8> {
        Message::Answer {
            id,
            result: rpc::raw(self),
        }
        .to_json()
    }

    /// Reads the frame.
    ///
    /// # Errors
    /// It is something else, or the control plane refuses; with the reason.
    pub fn decode(frame: &[u8]) -> Result<HelloAnswer, String> {
        match Message::from_json(frame).map_err(|error| error.to_string())? {
            Message::Answer { result, .. } => {
                serde_json::from_str(result.get()).map_err(|error| error.to_string())
            }
            Message::Failure { code, message, .. } => Err(format!("{message} ({code})")),
            _ => Err("no answer to the hello".to_owned()),
        }
    }

    /// Whether the control plane has this capability.
    pub fn has(&self, capability: &str) -> bool {
        self.rpc_capabilities.iter().any(|it| it == capability)
    }
}

/// One entity that is other than before, or gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The list it is in, such as `routes`.
    pub table: String,
    /// Its id, in canonical form.
    pub id: String,
    /// What it is now, with references as objects; `None` if it is gone.
    pub entity: Option<Value>,
}

/// What leads from one version to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Deltas {
    /// Whether these are all entities there are.
    pub full: bool,
    /// Where this has to start from; `None` in answers, which start from what was asked for.
    pub from: Option<SyncVersion>,
    /// Where it leads.
    pub version: SyncVersion,
    /// The hash of the configuration there ([`super::digest`]); `None` from Kong.
    pub hash: Option<ConfigHash>,
    /// The changes; an entity once at most.
    pub list: Vec<Delta>,
}

#[derive(Serialize, Deserialize)]
struct WireDelta<'a> {
    #[serde(rename = "type")]
    table: String,
    #[serde(default)]
    entity: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pk: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct WireDeltas {
    #[serde(default, deserialize_with = "lua_list")]
    deltas: Vec<Box<RawValue>>,
    #[serde(default, alias = "wipe")]
    full_sync: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<SyncVersion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<SyncVersion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<ConfigHash>,
}

#[derive(Serialize, Deserialize)]
struct Default1<T> {
    default: T,
}

impl Deltas {
    /// As the result of [`GET_DELTA`], and as what [`PUSH`] takes.
    pub fn to_raw(&self) -> Box<RawValue> {
        let version = self.version.as_str();
        let one = |delta: &Delta| {
            rpc::raw(&WireDelta {
                table: delta.table.clone(),
                pk: match delta.entity {
                    None => Some(json!({"id": delta.id})),
                    Some(_) => None,
                },
                entity: delta.entity.clone(),
                version: Some(version),
            })
        };
        rpc::raw(&Default1 {
            default: WireDeltas {
                deltas: self.list.iter().map(one).collect(),
                full_sync: self.full,
                from: self.from,
                version: Some(self.version),
                hash: self.hash,
            },
        })
    }

    /// The frame of a [`PUSH`]; the same for every data plane.
    pub fn push(&self) -> Vec<u8> {
        let params = rpc::raw(&[self.to_raw()]);
        Message::Notification {
            method: PUSH.to_owned(),
            params,
        }
        .encode()
    }

    /// Reads a result of [`GET_DELTA`]. Entities without an id are left out: Kong's workspaces and
    /// parameters mean nothing here.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_raw(raw: &RawValue) -> Result<Deltas, String> {
        let Default1 { default: wire }: Default1<WireDeltas> =
            serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let mut version = wire.version;
        let mut list = Vec::with_capacity(wire.deltas.len());
        for raw in &wire.deltas {
            let delta: WireDelta<'_> =
                serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
            // of several, the last one is the newest
            if wire.version.is_none()
                && let Some(text) = delta.version
            {
                version = Some(text.parse().map_err(|e| format!("version: {e}"))?);
            }
            let entity = delta.entity.filter(|entity| !entity.is_null());
            let id = match (&entity, &delta.pk) {
                (Some(entity), _) => &entity["id"],
                (None, Some(pk)) => &pk["id"],
                (None, None) => return Err(format!("a delta of {:?} without entity", delta.table)),
            };
            let Some(id) = id.as_str() else { continue };
            if !is_uuid(id) {
                return Err(format!(
                    "a delta of {:?} with id {id:?}, no UUID",
                    delta.table
                ));
            }
            list.push(Delta {
                table: delta.table,
                id: id.to_ascii_lowercase(),
                entity,
            });
        }
        Ok(Deltas {
            full: wire.full_sync,
            from: wire.from,
            version: version.unwrap_or(SyncVersion::NONE),
            hash: wire.hash,
            list,
        })
    }

    /// Reads the params of a [`PUSH`].
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_params(params: &RawValue) -> Result<Deltas, String> {
        let [deltas]: [Box<RawValue>; 1] = params_of(params)?;
        Deltas::from_raw(&deltas)
    }
}

/// Asks for what leads from a version to the newest one.
pub fn get_delta(id: u64, version: SyncVersion) -> Message {
    let params = rpc::raw(&json!([{"default": {"version": version}}]));
    let method = GET_DELTA.to_owned();
    Message::Call { id, method, params }
}

/// The version in the params of [`GET_DELTA`].
///
/// # Errors
/// What is wrong with them.
pub fn asked_version(params: &RawValue) -> Result<SyncVersion, String> {
    #[derive(Deserialize)]
    struct At {
        version: SyncVersion,
    }
    let [asked]: [Default1<At>; 1] = params_of(params)?;
    Ok(asked.default.version)
}

/// Says that there is a newer version.
pub fn notify(id: u64, version: SyncVersion) -> Message {
    let params = rpc::raw(&json!([{"default": {"new_version": version}}]));
    let method = NOTIFY.to_owned();
    Message::Call { id, method, params }
}

/// An entity that a data plane did not take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// Its list, such as `routes`.
    pub entity_type: String,
    /// Its id; empty if it has none.
    pub entity_id: String,
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub entity_name: String,
    /// The field that is wrong; empty for the whole of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// Whether an earlier version of it is still served.
    pub kept: bool,
    /// Whether what it was to apply to answers 503 instead.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

/// What a data plane made of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The newest version it has.
    pub version: SyncVersion,
    /// The hash of what it serves.
    pub config_hash: ConfigHash,
    /// What of the version it did not take, at most [`REFUSED_MAX`].
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// Entities in one [`Report`].
pub const REFUSED_MAX: usize = 50;

impl Report {
    /// As a notification.
    pub fn to_message(&self) -> Message {
        Message::Notification {
            method: REPORT.to_owned(),
            params: rpc::raw(&[self]),
        }
    }

    /// Reads the params of a [`REPORT`].
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_params(params: &RawValue) -> Result<Report, String> {
        let [mut report]: [Report; 1] = params_of(params)?;
        report.refused.truncate(REFUSED_MAX);
        Ok(report)
    }
}

fn params_of<'a, T: Deserialize<'a>>(params: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(params.get()).map_err(|error| format!("params: {error}"))
}

mod uuid_text {
    /// Whether a text is a UUID in its usual form.
    pub(super) fn is_uuid(text: &str) -> bool {
        text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11";

    #[test]
    fn a_version_is_of_one_control_plane() {
        let version = SyncVersion::new(0xabc, 77);
        assert_eq!(version.as_str(), "v02_000000000abc000000000000004d");
        assert_eq!(version.revision(0xabc), Some(77));
        assert_eq!(version.revision(0xabd), None);
        assert_eq!(SyncVersion::NONE.revision(0xabc), None);
        assert_eq!(version.to_string().parse(), Ok(version));
        assert!(version.is_before(&SyncVersion::new(0xabc, 0x100)));
        assert!(!version.is_before(&version));
        assert!(!SyncVersion::new(0xabc, 0x100).is_before(&version));
        assert!(!version.is_before(&SyncVersion::new(0xabd, 78)));
        assert!(!SyncVersion::NONE.is_before(&version));
        assert!(!version.is_before(&SyncVersion::NONE));
    }

    /// As the documented format has it; Kong's own, without our additions.
    #[test]
    fn kongs_frames_are_read() {
        let hello = br#"{"jsonrpc":"2.0","id":1,"method":"kong.meta.v1.hello","params":[{
            "rpc_capabilities":["kong.sync.v2"],"rpc_frame_encodings":["x-snappy-framed"],
            "kong_version":"3.10.0","kong_hostname":"edge","kong_node_id":"7c4c3ed5-7a4c-4d3c-8f8f-1f0b0f7e2d11",
            "kong_conf":{"role":"data_plane","cluster_dp_labels":["zone:a","tier:gold"]}}]}"#;
        let (id, hello) = Hello::decode(hello).unwrap();
        assert_eq!(hello.labels["zone"], "a");
        assert_eq!(hello.labels.len(), 2);
        assert_eq!((id, hello.kong_node_id.as_str()), (1, ID));
        assert_eq!(hello.rpc_capabilities, [SYNC]);

        let answer = br#"{"jsonrpc":"2.0","id":1,"result":{"rpc_capabilities":["kong.sync.v2"],"rpc_frame_encoding":"x-snappy-framed"}}"#;
        let answer = HelloAnswer::decode(answer).unwrap();
        assert!(answer.has(SYNC) && !answer.has(OWN));
        // to a data plane that is older than it, which has to take protocol v1
        let answer = br#"{"jsonrpc":"2.0","id":1,"result":{"rpc_capabilities":{},"rpc_frame_encoding":"x-snappy-framed"}}"#;
        let answer = HelloAnswer::decode(answer).unwrap();
        assert!(!answer.has(SYNC) && answer.rpc_capabilities.is_empty());

        let asked = br#"{"jsonrpc":"2.0","id":0,"method":"kong.sync.v2.get_delta","params":[{"default":{"version":"00000000000000000000000000000000"}}]}"#;
        let Message::Call { params, .. } = Message::from_json(asked).unwrap() else {
            panic!("no call");
        };
        assert_eq!(asked_version(&params), Ok(SyncVersion::NONE));

        let result = format!(
            r#"{{"default":{{"full_sync":true,"deltas":[
              {{"type":"workspaces","entity":{{"name":"default"}},"version":"v02_0000000000000000000000000001","ws_id":"x"}},
              {{"type":"services","entity":{{"id":"{ID}","host":"a"}},"version":"v02_0000000000000000000000000002","ws_id":"x"}},
              {{"type":"routes","entity":null,"pk":{{"id":"{ID}"}},"version":"v02_0000000000000000000000000003"}}]}}}}"#
        );
        let deltas = Deltas::from_raw(&RawValue::from_string(result).unwrap()).unwrap();
        assert_eq!(deltas.version.as_str(), "v02_0000000000000000000000000003");
        assert!(deltas.full && deltas.hash.is_none() && deltas.list.len() == 2);
        assert_eq!(deltas.list[1].entity, None);

        let nothing = r#"{"default":{"deltas":{},"full_sync":false}}"#;
        let deltas = Deltas::from_raw(&RawValue::from_string(nothing.to_owned()).unwrap()).unwrap();
        assert!(!deltas.full && deltas.list.is_empty() && deltas.hash.is_none());
    }

    #[test]
    fn a_hello_needs_our_encoding_and_its_own_labels_come_first() {
        let hello = |encoding: &str| Hello {
            rpc_frame_encodings: vec![encoding.to_owned()],
            labels: [("zone".to_owned(), "own".to_owned())]
                .into_iter()
                .collect(),
            kong_conf: [(DP_LABELS.to_owned(), json!(["zone:a", "tier:gold"]))]
                .into_iter()
                .collect(),
            ..Hello::default()
        };
        let (_, read) = Hello::decode(&hello(rpc::ENCODING).encode()).unwrap();
        assert_eq!(
            (&*read.labels["zone"], &*read.labels["tier"]),
            ("own", "gold")
        );
        let told = Hello::decode(&hello("x-other").encode()).unwrap_err();
        assert!(told.contains(rpc::ENCODING), "{told}");
    }

    #[test]
    fn the_version_of_the_whole_counts_more_than_that_of_a_delta() {
        let result = format!(
            r#"{{"default":{{"full_sync":false,"version":"v02_0000000000010000000000000009","deltas":[
              {{"type":"services","entity":{{"id":"{ID}","host":"a"}},"version":"v02_0000000000010000000000000002"}}]}}}}"#
        );
        let deltas = Deltas::from_raw(&RawValue::from_string(result).unwrap()).unwrap();
        assert_eq!(deltas.version, SyncVersion::new(1, 9));
    }

    fn deltas() -> impl Strategy<Value = Deltas> {
        let delta =
            ("[a-z_]{1,9}", any::<u128>(), any::<Option<u16>>()).prop_map(|(table, id, n)| {
                let hex = format!("{id:032x}");
                let id = format!(
                    "{}-{}-{}-{}-{}",
                    &hex[..8],
                    &hex[8..12],
                    &hex[12..16],
                    &hex[16..20],
                    &hex[20..]
                );
                let entity = n.map(|n| json!({"id": id, "n": n, "none": null}));
                Delta { table, id, entity }
            });
        let list = proptest::collection::vec(delta, 0..6);
        (any::<bool>(), any::<Option<u64>>(), any::<u64>(), list).prop_map(
            |(full, from, to, list)| Deltas {
                full,
                from: from.map(|from| SyncVersion::new(1, from)),
                version: SyncVersion::new(1, to),
                hash: full.then_some(ConfigHash::ZERO),
                list,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(deltas in deltas()) {
            prop_assert_eq!(&Deltas::from_raw(&deltas.to_raw()).unwrap(), &deltas);
            let read = rpc::decode(&deltas.push(), 1 << 20).unwrap();
            let [Ok(Message::Notification { method, params })] = read.as_slice() else {
                panic!("{read:?}");
            };
            prop_assert_eq!(method, PUSH);
            prop_assert_eq!(Deltas::from_params(params).unwrap(), deltas);
        }

        #[test]
        fn hostile_texts_never_panic(text in r#"[\[\]{}":,a-z0-9]{0,80}"#) {
            if let Ok(raw) = RawValue::from_string(text) {
                _ = Deltas::from_raw(&raw);
                _ = Deltas::from_params(&raw);
                _ = Report::from_params(&raw);
                _ = asked_version(&raw);
            }
        }
    }
}
