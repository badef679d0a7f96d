//! Rows of data planes.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::control_planes::number;
use super::{Outcome, WriteTx, json, to_json, uuid};
use crate::{Node, NodeSeen, StoreError, SyncStatus};

pub(crate) fn record(tx: &mut WriteTx<'_>, seen: &[NodeSeen]) -> Outcome<()> {
    let newest: BTreeMap<(Uuid, Uuid), &NodeSeen> = seen
        .iter()
        .map(|node| ((node.control_plane, node.id), node))
        .collect();
    let mut upsert = tx.prepare_cached(
        "INSERT INTO node (cp, id, hostname, version, ip, labels, first_seen_s, last_seen_s,
             config_hash, sync_status, sync_detail, cert_expires_s)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (cp, id) DO UPDATE SET hostname = ?3, version = ?4, ip = ?5, labels = ?6,
             last_seen_s = ?7, config_hash = ?8, sync_status = ?9, sync_detail = ?10,
             cert_expires_s = ?11",
    )?;
    for ((cp, id), node) in newest {
        let number: Option<i64> = tx
            .prepare_cached("SELECT cp FROM control_plane WHERE id = ?1")?
            .query_row([cp.as_bytes()], |row| row.get(0))
            .optional()?;
        let Some(number) = number else { continue };
        upsert.execute(params![
            number,
            id.as_bytes(),
            node.hostname,
            node.version,
            node.ip,
            to_json(&node.labels),
            node.at,
            node.config_hash,
            node.sync_status.as_str(),
            node.sync_detail,
            node.cert_expires_at,
        ])?;
    }
    Ok(())
}

pub(crate) fn list(tx: &Connection, cp: Uuid) -> Outcome<Vec<Node>> {
    let number = number(tx, cp)?;
    let mut select = tx.prepare_cached(
        "SELECT id, hostname, version, ip, labels, first_seen_s, last_seen_s, config_hash,
             sync_status, sync_detail, cert_expires_s
         FROM node WHERE cp = ?1 ORDER BY first_seen_s, id",
    )?;
    let rows = select.query_map([number], |row| from_row(cp, row))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn from_row(cp: Uuid, row: &Row<'_>) -> rusqlite::Result<Node> {
    let status: String = row.get(8)?;
    let seen = NodeSeen {
        control_plane: cp,
        id: uuid(row, 0)?,
        hostname: row.get(1)?,
        version: row.get(2)?,
        ip: row.get(3)?,
        labels: json(row, 4)?,
        at: row.get(6)?,
        config_hash: row.get(7)?,
        sync_status: SyncStatus::from_name(&status),
        sync_detail: row.get(9)?,
        cert_expires_at: row.get(10)?,
    };
    Ok(Node {
        seen,
        created_at: row.get(5)?,
    })
}

pub(crate) fn delete(tx: &mut WriteTx<'_>, cp: Uuid, id: Uuid) -> Outcome<()> {
    let number = number(tx, cp)?;
    let gone = tx.execute(
        "DELETE FROM node WHERE cp = ?1 AND id = ?2",
        params![number, id.as_bytes()],
    )?;
    if gone == 0 {
        Err(StoreError::NotFound.into())
    } else {
        Ok(())
    }
}
