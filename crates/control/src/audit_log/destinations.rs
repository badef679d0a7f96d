//! Where the log is sent: destinations, the one that the webhook paths speak of, replays.

use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::database::{number, set_state, signed, state};

/// Destinations there may be.
pub(super) const DESTINATIONS_MAX: usize = 100;

const WEBHOOK: &str = "webhook";
const REPLAY: &str = "replay";

/// A receiver of records over HTTPS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Destination {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) endpoint: String,
    /// Value of the header `Authorization`; never shown.
    pub(super) authorization: String,
    /// `cef`, `json` or `cps`.
    pub(super) log_format: String,
    pub(super) skip_ssl_verification: bool,
    /// Whether records are sent there.
    pub(super) enabled: bool,
    pub(super) created_at_ms: i64,
    pub(super) updated_at_ms: i64,
}

impl Destination {
    /// The name of its place in the log.
    pub(super) fn delivery(&self) -> String {
        format!("webhook:{}", self.id)
    }
}

/// How far a delivery is, and how its last attempt went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Attempt {
    pub(super) at_ms: Option<i64>,
    pub(super) code: Option<u16>,
    pub(super) message: Option<String>,
    pub(super) succeeded: bool,
}

/// Records of a time sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replay {
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) status: ReplayStatus,
    pub(super) updated_at_ms: i64,
    /// Records up to this one were sent.
    pub(super) done_seq: u64,
    /// The last record when it was asked for; later ones are not part of it.
    pub(super) last_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReplayStatus {
    Accepted,
    Running,
    Completed,
    Failed,
}

impl ReplayStatus {
    pub(super) fn is_over(self) -> bool {
        matches!(self, ReplayStatus::Completed | ReplayStatus::Failed)
    }
}

/// A stored JSON text; `None` also if another build's shape cannot be read.
fn read<T: DeserializeOwned>(text: Option<String>) -> Option<T> {
    text.and_then(|text| serde_json::from_str(&text).ok())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain values with string keys are always JSON")
}

pub(super) fn all(conn: &Connection) -> rusqlite::Result<Vec<Destination>> {
    let mut query = conn.prepare_cached("SELECT body FROM destination ORDER BY rowid")?;
    let texts = query.query_map([], |row| row.get::<_, String>(0))?;
    let mut found = Vec::new();
    for text in texts {
        found.extend(read::<Destination>(Some(text?)));
    }
    Ok(found)
}

pub(super) fn one(conn: &Connection, id: Uuid) -> rusqlite::Result<Option<Destination>> {
    let text = conn
        .prepare_cached("SELECT body FROM destination WHERE id = ?1")?
        .query_row([id.to_string()], |row| row.get(0))
        .optional()?;
    Ok(read(text))
}

pub(super) fn put(conn: &Connection, destination: &Destination) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO destination (id, body) VALUES (?1, ?2)
         ON CONFLICT (id) DO UPDATE SET body = excluded.body",
    )?
    .execute([destination.id.to_string(), json(destination)])?;
    if destination.enabled {
        // from now on; what was before is there for a replay
        let next = super::database::head(conn)?.seq + 1;
        conn.execute(
            "INSERT OR IGNORE INTO delivery (name, next_seq, body) VALUES (?1, ?2, '{}')",
            params![destination.delivery(), signed(next)],
        )?;
    }
    Ok(())
}

/// Removes a destination; whether it was there.
pub(super) fn remove(conn: &Connection, id: Uuid) -> rusqlite::Result<bool> {
    let name = format!("webhook:{id}");
    conn.execute("DELETE FROM delivery WHERE name = ?1", [name])?;
    if webhook(conn)? == Some(id) {
        set_webhook(conn, None)?;
    }
    Ok(conn.execute("DELETE FROM destination WHERE id = ?1", [id.to_string()])? > 0)
}

/// The destination that the webhook paths speak of.
pub(super) fn webhook(conn: &Connection) -> rusqlite::Result<Option<Uuid>> {
    Ok(state(conn, WEBHOOK)?.and_then(|text| Uuid::try_parse(&text).ok()))
}

pub(super) fn set_webhook(conn: &Connection, id: Option<Uuid>) -> rusqlite::Result<()> {
    let text = id.map_or_else(String::new, |id| id.to_string());
    set_state(conn, WEBHOOK, &text)
}

pub(super) fn replay(conn: &Connection) -> rusqlite::Result<Option<Replay>> {
    Ok(read(state(conn, REPLAY)?))
}

pub(super) fn set_replay(conn: &Connection, replay: &Replay) -> rusqlite::Result<()> {
    set_state(conn, REPLAY, &json(replay))
}

/// The next record of a delivery and its last attempt; `None` if it never began.
pub(super) fn delivery(conn: &Connection, name: &str) -> rusqlite::Result<Option<(u64, Attempt)>> {
    let found = conn
        .prepare_cached("SELECT next_seq, body FROM delivery WHERE name = ?1")?
        .query_row([name], |row| {
            let body: String = row.get(1)?;
            Ok((number(row.get(0)?), read(Some(body)).unwrap_or_default()))
        })
        .optional()?;
    Ok(found)
}

/// Notes how far a delivery is; it never goes back.
pub(super) fn set_delivery(
    conn: &Connection,
    name: &str,
    next: u64,
    attempt: &Attempt,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO delivery (name, next_seq, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE
         SET next_seq = max(next_seq, excluded.next_seq), body = excluded.body",
    )?
    .execute(params![name, signed(next), json(attempt)])?;
    Ok(())
}
