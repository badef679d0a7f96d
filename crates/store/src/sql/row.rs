//! Values on their way into statements and out of answers: integers, text and bytes.

use std::error::Error;

use bytes::BytesMut;
use serde::de::DeserializeOwned;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::{Fail, Outcome};
use crate::StoreError;

/// An argument of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Arg::Int(number)
    }
}

impl From<bool> for Arg<'_> {
    fn from(yes: bool) -> Self {
        Arg::Int(i64::from(yes))
    }
}

impl From<Option<i64>> for Arg<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Arg::Null, Arg::Int)
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Arg::Text(text)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(text: &'a String) -> Self {
        Arg::Text(text)
    }
}

impl<'a> From<&'a Option<String>> for Arg<'a> {
    fn from(text: &'a Option<String>) -> Self {
        text.as_ref().map_or(Arg::Null, Arg::from)
    }
}

impl<'a> From<&'a Uuid> for Arg<'a> {
    fn from(id: &'a Uuid) -> Self {
        Arg::Bytes(id.as_bytes())
    }
}

impl<'a> From<Option<&'a Uuid>> for Arg<'a> {
    fn from(id: Option<&'a Uuid>) -> Self {
        id.map_or(Arg::Null, Arg::from)
    }
}

impl<'a> From<&'a [u8; 32]> for Arg<'a> {
    fn from(digest: &'a [u8; 32]) -> Self {
        Arg::Bytes(digest)
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Arg::Bytes(bytes)
    }
}

/// Refuses what one of the engines cannot hold: PostgreSQL has no text with a NUL in it.
pub(super) fn check(args: &[Arg<'_>]) -> Outcome<()> {
    let nul = |arg: &Arg<'_>| matches!(arg, Arg::Text(text) if text.as_bytes().contains(&0));
    if args.iter().any(nul) {
        return Err(StoreError::NulCharacter.into());
    }
    Ok(())
}

impl rusqlite::ToSql for Arg<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, ValueRef};
        Ok(ToSqlOutput::Borrowed(match self {
            Arg::Null => ValueRef::Null,
            Arg::Int(number) => ValueRef::Integer(*number),
            Arg::Text(text) => ValueRef::Text(text.as_bytes()),
            Arg::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl ToSql for Arg<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Arg::Null => Ok(IsNull::Yes),
            Arg::Int(number) if *kind == Type::INT8 => number.to_sql(kind, out),
            Arg::Text(text) if *kind == Type::TEXT => text.to_sql(kind, out),
            Arg::Bytes(bytes) if *kind == Type::BYTEA => bytes.to_sql(kind, out),
            other => Err(format!("{other:?} where the statement wants {kind}").into()),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(kind)
    }

    to_sql_checked!();
}

/// A row of an answer; columns count from 0.
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r tokio_postgres::Row),
}

impl Row<'_> {
    pub(crate) fn int(&self, column: usize) -> Outcome<i64> {
        Ok(match self {
            Row::Sqlite(row) => row.get(column)?,
            Row::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn int_or_null(&self, column: usize) -> Outcome<Option<i64>> {
        Ok(match self {
            Row::Sqlite(row) => row.get(column)?,
            Row::Postgres(row) => row.try_get(column)?,
        })
    }

    /// A text, or nothing where there is NULL.
    pub(crate) fn text_or_null(&self, column: usize) -> Outcome<Option<&str>> {
        match self {
            Row::Sqlite(row) => {
                let value = row.get_ref(column)?;
                let text = value.as_str_or_null();
                text.map_err(|error| damaged(column, &error))
            }
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn str(&self, column: usize) -> Outcome<&str> {
        let text = self.text_or_null(column)?;
        text.ok_or_else(|| damaged(column, &"NULL"))
    }

    pub(crate) fn text(&self, column: usize) -> Outcome<String> {
        Ok(self.str(column)?.to_owned())
    }

    pub(crate) fn bytes(&self, column: usize) -> Outcome<&[u8]> {
        match self {
            Row::Sqlite(row) => {
                let value = row.get_ref(column)?;
                value.as_blob().map_err(|error| damaged(column, &error))
            }
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn uuid(&self, column: usize) -> Outcome<Uuid> {
        Uuid::from_slice(self.bytes(column)?).map_err(|error| damaged(column, &error))
    }

    pub(crate) fn digest(&self, column: usize) -> Outcome<[u8; 32]> {
        let bytes = self.bytes(column)?;
        <[u8; 32]>::try_from(bytes).map_err(|error| damaged(column, &error))
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: usize) -> Outcome<T> {
        serde_json::from_str(self.str(column)?).map_err(|error| damaged(column, &error))
    }

    pub(crate) fn json_or_null<T: DeserializeOwned>(&self, column: usize) -> Outcome<Option<T>> {
        let text = self.text_or_null(column)?;
        let value = text.map(serde_json::from_str).transpose();
        value.map_err(|error| damaged(column, &error))
    }
}

fn damaged(column: usize, what: &dyn std::fmt::Display) -> Fail {
    Fail::Damaged(format!("column {column} of a row is damaged: {what}"))
}
