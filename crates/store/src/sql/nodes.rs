//! Rows of data planes.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::control_planes::number;
use super::{Outcome, Row, Tx, args, signed, to_json, unsigned};
use crate::{Node, NodeSeen, StoreError, SyncStatus};

pub(crate) async fn record(tx: &mut Tx, seen: Vec<NodeSeen>) -> Outcome<()> {
    // In one order, so that two writers of the same nodes cannot wait for each other.
    let newest: BTreeMap<(Uuid, Uuid), NodeSeen> = seen
        .into_iter()
        .map(|node| ((node.control_plane, node.id), node))
        .collect();
    let find = format!(
        "SELECT cp FROM control_plane WHERE id = ?1{}",
        tx.keep_rows()
    );
    for ((cp, id), node) in newest {
        let number = tx.first(&find, args![&cp], |row| row.int(0)).await?;
        let Some(number) = number else { continue };
        tx.run(
            "INSERT INTO node (cp, id, hostname, version, ip, labels, first_seen_s, last_seen_s,
                 config_hash, sync_status, sync_detail, cert_expires_s, revision, refused)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (cp, id) DO UPDATE SET hostname = ?3, version = ?4, ip = ?5, labels = ?6,
                 last_seen_s = ?7, config_hash = ?8, sync_status = ?9, sync_detail = ?10,
                 cert_expires_s = ?11, revision = ?12, refused = ?13",
            args![
                number,
                &id,
                &node.hostname,
                &node.version,
                &node.ip,
                &to_json(&node.labels),
                node.at,
                &node.config_hash,
                node.sync_status.as_str(),
                &node.sync_detail,
                node.cert_expires_at,
                signed(node.revision),
                &to_json(&node.refused),
            ],
        )
        .await?;
    }
    Ok(())
}

/// What [`from_row`] reads, of the tables `node` and `control_plane`.
const ROWS: &str = "SELECT node.id, hostname, version, ip, node.labels, first_seen_s, last_seen_s,
         config_hash, sync_status, sync_detail, cert_expires_s, revision, refused,
         control_plane.id
     FROM node JOIN control_plane ON control_plane.cp = node.cp";

pub(crate) async fn list(tx: &mut Tx, cp: Uuid) -> Outcome<Vec<Node>> {
    let number = number(tx, cp).await?;
    let sql = format!("{ROWS} WHERE node.cp = ?1 ORDER BY first_seen_s, node.id");
    tx.all(&sql, args![number], from_row).await
}

pub(crate) async fn all(tx: &mut Tx) -> Outcome<Vec<Node>> {
    let sql = format!("{ROWS} ORDER BY control_plane.id, first_seen_s, node.id");
    tx.all(&sql, args![], from_row).await
}

fn from_row(row: &Row<'_>) -> Outcome<Node> {
    let seen = NodeSeen {
        control_plane: row.uuid(13)?,
        id: row.uuid(0)?,
        hostname: row.text(1)?,
        version: row.text(2)?,
        ip: row.text(3)?,
        labels: row.json(4)?,
        at: row.int(6)?,
        config_hash: row.text(7)?,
        sync_status: SyncStatus::from_name(row.str(8)?),
        sync_detail: row.text(9)?,
        cert_expires_at: row.int(10)?,
        revision: unsigned(row.int(11)?),
        refused: row.json(12)?,
    };
    Ok(Node {
        seen,
        created_at: row.int(5)?,
    })
}

pub(crate) async fn purge(tx: &mut Tx, before: i64) -> Outcome<u64> {
    tx.run("DELETE FROM node WHERE last_seen_s < ?1", args![before])
        .await
}

pub(crate) async fn delete(tx: &mut Tx, cp: Uuid, id: Uuid) -> Outcome<()> {
    let number = number(tx, cp).await?;
    let sql = "DELETE FROM node WHERE cp = ?1 AND id = ?2";
    match tx.run(sql, args![number, &id]).await? {
        0 => Err(StoreError::NotFound.into()),
        _ => Ok(()),
    }
}
