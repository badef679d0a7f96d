//! `vaults`: places for secrets that references name by a prefix. Source of fields and rules:
//! Kong's entity `vaults` and its vault `env`; the vault `file` is ours.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::entity::{EntitySchema, as_given, head, tags};
use super::error::{FieldError, Path};
use super::field::Field;
use super::record::{EntityCheck, Record};
use super::validate::{Mode, validate_at};
use crate::Kind;

/// Every type of vault, and the name of its implicit vault.
pub const VAULTS: &[&str] = &["env", "file"];

/// Those of Kong that this build does not have.
const ABSENT: &[&str] = &["aws", "azure", "conjur", "gcp", "hcv"];

pub(super) fn schema() -> EntitySchema {
    let config = Record::new([
        Field::string("prefix").about("What the names of secrets begin with, in the vault."),
        Field::boolean("base64_decode").about("Whether secrets are stored in base64."),
    ]);
    let record = Record::new(head().into_iter().chain([
        Field::string("prefix").required().unique().check(prefix),
        Field::string("name").required().check(known),
        Field::string("description"),
        Field::record("config", config).required(),
        tags(),
    ]))
    .check(EntityCheck::Custom {
        fields: &["name", "config"],
        run: by_name,
    });
    EntitySchema {
        kind: Kind::Vault,
        record,
        endpoint_key: Some("prefix"),
        unique_together: &[],
        prepare: as_given,
    }
}

/// The configuration of a type of vault, as `schemas/vaults/{name}` answers; `None` for a type
/// that this build does not have.
pub fn vault_schema(name: &str) -> Option<&'static Record> {
    static ENV: LazyLock<Record> = LazyLock::new(|| of(Field::string("prefix").check(env_prefix)));
    static FILE: LazyLock<Record> =
        LazyLock::new(|| of(Field::string("prefix").check(file_prefix)));
    let of_type: &'static LazyLock<Record> = match name {
        "env" => &ENV,
        "file" => &FILE,
        _ => return None,
    };
    Some(of_type)
}

fn of(prefix: Field) -> Record {
    Record::new([prefix, Field::boolean("base64_decode")])
}

/// What stands between `{vault://` and the first slash. Source: Kong's entity.
fn prefix(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    if VAULTS.contains(&text) || ABSENT.contains(&text) {
        return Err(format!("must not be one of: {}", all_names()));
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let good = bytes.len() > 1
        && bytes[0].is_ascii_lowercase()
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
        && plain(bytes[bytes.len() - 1]);
    match good {
        true => Ok(()),
        false => Err(format!(
            "invalid value: {text} (expected at least two of a-z, 0-9 and '-', a letter first and no '-' last)"
        )),
    }
}

fn all_names() -> String {
    [VAULTS, ABSENT].concat().join(", ")
}

fn known(value: &Value) -> Result<(), String> {
    match value.as_str().unwrap_or_default() {
        name if VAULTS.contains(&name) => Ok(()),
        name if ABSENT.contains(&name) => Err(format!(
            "vault '{name}' is not part of this build; possible: {}",
            VAULTS.join(", ")
        )),
        name => Err(format!(
            "vault '{name}' is not installed; possible: {}",
            VAULTS.join(", ")
        )),
    }
}

/// Source: Kong's vault `env`.
fn env_prefix(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match text.bytes().all(good) && !text.starts_with(|first: char| first.is_ascii_digit()) {
        true => Ok(()),
        false => Err(format!(
            "invalid value: {text} (expected letters, digits, '_' and '-', no digit first)"
        )),
    }
}

fn file_prefix(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let inside = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    match text.split('/').all(inside) {
        true => Ok(()),
        false => Err(format!(
            "invalid value: {text} (expected a directory below the one of vault_file_prefix, such as redis)"
        )),
    }
}

/// The rules of the type's own configuration.
fn by_name(vault: &Map<String, Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let name = vault.get("name").and_then(Value::as_str);
    let Some(record) = name.and_then(vault_schema) else {
        return;
    };
    let config = vault.get("config").cloned().unwrap_or(json!({}));
    validate_at(record, config, Mode::Strict, &path.key("config"), errors);
}
