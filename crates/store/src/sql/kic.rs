//! Rows of what ingress controllers tell.

use serde_json::Value;
use uuid::Uuid;

use super::control_planes::{lock, number};
use super::{Outcome, Row, Tx, args, to_json};
use crate::kic::KIC_NODES_MAX;
use crate::{KicNode, StoreError};

fn node(row: &Row<'_>) -> Outcome<KicNode> {
    Ok(KicNode {
        id: row.uuid(0)?,
        body: row.json(1)?,
        created_at: row.int(2)?,
        updated_at: row.int(3)?,
    })
}

pub(crate) async fn list(tx: &mut Tx, cp: Uuid) -> Outcome<Vec<KicNode>> {
    let number = number(tx, cp).await?;
    let sql = "SELECT id, body, created_s, updated_s FROM kic_node WHERE cp = ?1 ORDER BY id";
    tx.all(sql, args![number], node).await
}

pub(crate) async fn put(tx: &mut Tx, cp: Uuid, id: Uuid, body: Value) -> Outcome<KicNode> {
    let number = lock(tx, cp).await?.number;
    let sql = "SELECT count(*) FROM kic_node WHERE cp = ?1 AND id <> ?2";
    let others = tx.only(sql, args![number, &id], |row| row.int(0)).await?;
    if usize::try_from(others).is_ok_and(|others| others >= KIC_NODES_MAX) {
        return Err(StoreError::UniqueTaken {
            field: "id".to_owned(),
            value: format!("{KIC_NODES_MAX} nodes"),
        }
        .into());
    }
    let (text, now) = (to_json(&body), tx.now_ms() / 1_000);
    tx.only(
        "INSERT INTO kic_node (cp, id, body, created_s, updated_s) VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (cp, id) DO UPDATE SET body = excluded.body, updated_s = excluded.updated_s
         RETURNING id, body, created_s, updated_s",
        args![number, &id, &text, now],
        node,
    )
    .await
}

pub(crate) async fn delete(tx: &mut Tx, cp: Uuid, id: Uuid) -> Outcome<()> {
    let number = lock(tx, cp).await?.number;
    let sql = "DELETE FROM kic_node WHERE cp = ?1 AND id = ?2";
    tx.run(sql, args![number, &id]).await?;
    Ok(())
}
