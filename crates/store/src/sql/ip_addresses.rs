//! Rows of the published list of addresses.
//!
//! Every change takes the row of `ip_addresses` first, which counts revisions.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use super::{Outcome, Tx, args, signed, to_json, unsigned};
use crate::{IpAddresses, IpAddressesKey, StoreError};

/// The origin of a node's contribution.
fn origin_of(node: Uuid) -> String {
    format!("node/{node}")
}

pub(crate) async fn revision(tx: &mut Tx) -> Outcome<u64> {
    let sql = "SELECT revision FROM ip_addresses";
    let found = tx.first(sql, &[], |row| row.int(0)).await?;
    Ok(unsigned(found.unwrap_or(0)))
}

pub(crate) async fn all(tx: &mut Tx) -> Outcome<IpAddresses> {
    let sql = "SELECT revision, announced FROM ip_addresses";
    let head = tx
        .first(sql, &[], |row| Ok((row.int(0)?, row.json(1)?)))
        .await?;
    let (revision, announced) = head.unwrap_or((0, Vec::new()));
    let sql = "SELECT origin, body FROM ip_addresses_source ORDER BY origin";
    let sources = tx
        .all(sql, &[], |row| Ok((row.text(0)?, row.json(1)?)))
        .await?;
    let sql = "SELECT body FROM ip_addresses_version ORDER BY seq";
    Ok(IpAddresses {
        revision: unsigned(revision),
        sources: sources.into_iter().collect::<BTreeMap<String, Value>>(),
        versions: tx.all(sql, &[], |row| row.json(0)).await?,
        announced,
    })
}

/// Locks all of it; its next revision.
async fn next_revision(tx: &mut Tx) -> Outcome<i64> {
    tx.only(
        "INSERT INTO ip_addresses (one, revision, announced) VALUES (1, 1, '[]')
         ON CONFLICT (one) DO UPDATE SET revision = ip_addresses.revision + 1
         RETURNING revision",
        &[],
        |row| row.int(0),
    )
    .await
}

pub(crate) async fn contribute(tx: &mut Tx, origin: String, body: Value) -> Outcome<()> {
    let body = to_json(&body);
    let sql = "SELECT 1 FROM ip_addresses_source WHERE origin = ?1 AND body = ?2";
    let same = tx.first(sql, args![&origin, &body], |_| Ok(())).await?;
    if same.is_some() {
        return Ok(());
    }
    next_revision(tx).await?;
    tx.run(
        "INSERT INTO ip_addresses_source (origin, body) VALUES (?1, ?2)
         ON CONFLICT (origin) DO UPDATE SET body = excluded.body",
        args![&origin, &body],
    )
    .await?;
    Ok(())
}

pub(crate) async fn report(tx: &mut Tx, node: Uuid, body: Value) -> Outcome<()> {
    // Its removal waits for this row, and then takes the contribution along.
    let sql = format!(
        "SELECT 1 FROM cluster_node WHERE id = ?1 AND wanted <> 'removed'{}",
        tx.lock_rows("cluster_node")
    );
    let there = tx.first(&sql, args![&node], |_| Ok(())).await?;
    there.ok_or(StoreError::NotFound)?;
    contribute(tx, origin_of(node), body).await
}

/// A node's contribution goes with the node.
pub(super) async fn forget(tx: &mut Tx, node: Uuid) -> Outcome<()> {
    let sql = "DELETE FROM ip_addresses_source WHERE origin = ?1";
    if tx.run(sql, args![&origin_of(node)]).await? > 0 {
        next_revision(tx).await?;
    }
    Ok(())
}

pub(crate) async fn publish(
    tx: &mut Tx,
    revision: u64,
    versions: Vec<Value>,
    announced: Vec<Value>,
    keep: u32,
) -> Outcome<bool> {
    tx.run(
        "INSERT INTO ip_addresses (one, revision, announced) VALUES (1, 0, '[]')
         ON CONFLICT (one) DO NOTHING",
        &[],
    )
    .await?;
    let lock = tx.lock_rows("ip_addresses");
    let sql = format!("SELECT revision FROM ip_addresses{lock}");
    if tx.only(&sql, &[], |row| row.int(0)).await? != signed(revision) {
        return Ok(false);
    }
    next_revision(tx).await?;
    tx.run(
        "UPDATE ip_addresses SET announced = ?1",
        args![&to_json(&announced)],
    )
    .await?;
    let sql = "SELECT coalesce(max(seq), 0) FROM ip_addresses_version";
    let mut seq = tx.only(sql, &[], |row| row.int(0)).await?;
    for version in versions {
        seq += 1;
        tx.run(
            "INSERT INTO ip_addresses_version (seq, body) VALUES (?1, ?2)",
            args![seq, &to_json(&version)],
        )
        .await?;
    }
    tx.run(
        "DELETE FROM ip_addresses_version WHERE seq <= ?1",
        args![seq - i64::from(keep)],
    )
    .await?;
    Ok(true)
}

pub(crate) async fn key(tx: &mut Tx) -> Outcome<Option<IpAddressesKey>> {
    let sql = "SELECT public_key, sealed FROM ip_addresses_key";
    tx.first(sql, &[], |row| {
        Ok(IpAddressesKey {
            public_key: row.text(0)?,
            sealed: row.bytes(1)?.to_vec(),
        })
    })
    .await
}

pub(crate) async fn keep_key(tx: &mut Tx, offered: IpAddressesKey) -> Outcome<IpAddressesKey> {
    tx.run(
        "INSERT INTO ip_addresses_key (one, public_key, sealed) VALUES (1, ?1, ?2)
         ON CONFLICT (one) DO NOTHING",
        args![&offered.public_key, offered.sealed.as_slice()],
    )
    .await?;
    let kept = key(tx).await?;
    Ok(kept.unwrap_or(offered))
}
