//! Rows of the appliance cluster.
//!
//! Every change of the roster locks the row of `cluster` first, so that revisions are given out in
//! the order of commits. A leader's write shares the lock of its lease, so that nobody can take the
//! lease over before it is committed.

use std::str::FromStr;

use serde_json::json;
use uuid::Uuid;

use super::identity::log;
use super::{Arg, Fail, Outcome, Row, Tx, args, signed, unsigned};
use crate::{
    Actor, Admission, Cluster, ClusterRefusal, Lease, Member, NewCluster, NewMember, NodeRole,
    Roster, Step, StoreError, Wanted,
};

const LEADER: &str = "leader";
const MEMBER: &str =
    "SELECT id, name, role, address, wanted, wanted_at, key_digest, joined_ms FROM cluster_node";

pub(crate) async fn found(tx: &mut Tx, actor: Actor, new: NewCluster) -> Outcome<()> {
    tx.lock_installation().await?;
    if let Some(there) = cluster(tx).await? {
        if there.id == new.cluster.id {
            return Ok(());
        }
        return Err(taken("cluster", &there.id.to_string()));
    }
    let it = &new.cluster;
    let now = tx.now_ms();
    tx.run(
        "INSERT INTO cluster (one, id, revision, node_ca, node_ca_key, api_ca, api_ca_key, created_ms)
         VALUES (1, ?1, 0, ?2, ?3, ?4, ?5, ?6)",
        args![
            &it.id,
            &it.node_ca,
            it.node_ca_key.as_slice(),
            &it.api_ca,
            it.api_ca_key.as_slice(),
            now
        ],
    )
    .await?;
    tx.run(
        "INSERT INTO cluster_lease (name, holder, boot, epoch, until_us) VALUES (?1, NULL, NULL, 0, 0)",
        args![LEADER],
    )
    .await?;
    insert(tx, &actor, &new.first).await
}

pub(crate) async fn cluster(tx: &mut Tx) -> Outcome<Option<Cluster>> {
    tx.first(
        "SELECT id, node_ca, node_ca_key, api_ca, api_ca_key FROM cluster",
        &[],
        |row| {
            Ok(Cluster {
                id: row.uuid(0)?,
                node_ca: row.text(1)?,
                node_ca_key: row.bytes(2)?.to_vec(),
                api_ca: row.text(3)?,
                api_ca_key: row.bytes(4)?.to_vec(),
            })
        },
    )
    .await
}

/// Locks the roster; its next revision.
async fn next_revision(tx: &mut Tx) -> Outcome<i64> {
    let sql = "UPDATE cluster SET revision = revision + 1 RETURNING revision";
    let next = tx.first(sql, &[], |row| row.int(0)).await?;
    next.ok_or_else(|| StoreError::NotFound.into())
}

/// Reads a word that this store wrote.
fn word<T: FromStr<Err: std::fmt::Display>>(row: &Row<'_>, column: usize) -> Outcome<T> {
    let parsed = row.str(column)?.parse::<T>();
    parsed.map_err(|error| Fail::Damaged(format!("column {column} of a row: {error}")))
}

fn member(row: &Row<'_>) -> Outcome<Member> {
    Ok(Member {
        id: row.uuid(0)?,
        name: row.text(1)?,
        role: word(row, 2)?,
        address: row.text(3)?,
        wanted: word(row, 4)?,
        wanted_at: unsigned(row.int(5)?),
        key_digest: row.digest(6)?,
        joined_at_ms: row.int(7)?,
    })
}

fn taken(field: &str, value: &str) -> Fail {
    StoreError::UniqueTaken {
        field: field.to_owned(),
        value: value.to_owned(),
    }
    .into()
}

fn bad_token(why: &'static str) -> StoreError {
    ClusterRefusal::BadToken(why).into()
}

pub(crate) async fn roster(tx: &mut Tx) -> Outcome<Roster> {
    let revision = tx.first("SELECT revision FROM cluster", &[], |row| row.int(0));
    let revision = unsigned(revision.await?.unwrap_or(0));
    let sql = format!("{MEMBER} ORDER BY name, joined_ms, id");
    let members = tx.all(&sql, &[], member).await?;
    Ok(Roster { revision, members })
}

pub(crate) async fn roster_for(tx: &mut Tx, id: Uuid, boot: Uuid) -> Outcome<Roster> {
    let sql = "SELECT 1 FROM cluster_node WHERE id = ?1 AND boot = ?2";
    let mine = tx.first(sql, args![&id, &boot], |_| Ok(())).await?;
    let roster = roster(tx).await?;
    let removed = |it: &Member| it.id == id && it.wanted == Wanted::Removed;
    if mine.is_none() && !roster.members.iter().any(removed) {
        return Err(StoreError::from(ClusterRefusal::Superseded).into());
    }
    Ok(roster)
}

/// Puts a node into the locked roster.
async fn insert(tx: &mut Tx, actor: &Actor, new: &NewMember) -> Outcome<()> {
    let revision = next_revision(tx).await?;
    let clash = tx
        .first(
            "SELECT name FROM cluster_node WHERE wanted <> 'removed' AND (name = ?1 OR address = ?2)",
            args![&new.name, &new.address],
            |row| row.text(0),
        )
        .await?;
    if let Some(name) = clash {
        return Err(match name == new.name {
            true => taken("name", &name),
            false => taken("address", &new.address),
        });
    }
    let now = tx.now_ms();
    tx.run(
        "INSERT INTO cluster_node (id, name, role, address, wanted, wanted_at, key_digest, joined_ms)
         VALUES (?1, ?2, ?3, ?4, 'active', ?5, ?6, ?7)",
        args![
            &new.id,
            &new.name,
            new.role.as_str(),
            &new.address,
            revision,
            &new.key_digest,
            now
        ],
    )
    .await?;
    let after = json!({"name": new.name, "role": new.role.as_str(), "address": new.address});
    log(tx, actor, "cluster_node", new.id, None, Some(&after)).await
}

pub(crate) async fn create_token(
    tx: &mut Tx,
    actor: Actor,
    digest: [u8; 32],
    role: NodeRole,
    secs: u32,
) -> Outcome<()> {
    let cluster = cluster(tx).await?.ok_or(StoreError::NotFound)?;
    let now = tx.clock_us().await?;
    // What nobody can use any more, but for a day in which its repetition is told why.
    let day = 24 * 3600 * 1_000_000;
    tx.run(
        "DELETE FROM cluster_token WHERE expires_us < ?1",
        args![now - day],
    )
    .await?;
    tx.run(
        "INSERT INTO cluster_token (digest, role, expires_us, used_by) VALUES (?1, ?2, ?3, NULL)",
        args![&digest, role.as_str(), now + i64::from(secs) * 1_000_000],
    )
    .await?;
    let after = json!({"role": role.as_str(), "seconds": secs});
    log(tx, &actor, "cluster_token", cluster.id, None, Some(&after)).await
}

pub(crate) async fn admit(tx: &mut Tx, token: [u8; 32], new: NewMember) -> Outcome<Admission> {
    let sql = format!(
        "SELECT role, expires_us, used_by IS NULL, coalesce(used_by, digest) FROM cluster_token
         WHERE digest = ?1{}",
        tx.lock_rows("cluster_token")
    );
    let found = tx
        .first(&sql, args![&token], |row| {
            let free = match row {
                Row::Sqlite(row) => row.get::<_, bool>(2)?,
                Row::Postgres(row) => row.try_get::<_, bool>(2)?,
            };
            let role: NodeRole = word(row, 0)?;
            let used_by = if free { None } else { Some(row.uuid(3)?) };
            Ok((role, row.int(1)?, used_by))
        })
        .await?;
    let (role, expires_us, used_by) = found.ok_or(bad_token("not known here"))?;
    let cluster = cluster(tx).await?.ok_or(StoreError::NotFound)?;
    if let Some(id) = used_by {
        let sql = format!("{MEMBER} WHERE id = ?1");
        let there = tx.only(&sql, args![&id], member).await?;
        if there.key_digest != new.key_digest || there.wanted == Wanted::Removed {
            return Err(bad_token("used up already").into());
        }
        let member = there;
        return Ok(Admission { member, cluster });
    }
    if tx.clock_us().await? > expires_us {
        return Err(bad_token("too old").into());
    }
    let new = NewMember { role, ..new };
    insert(tx, &Actor("join token".to_owned()), &new).await?;
    tx.run(
        "UPDATE cluster_token SET used_by = ?2 WHERE digest = ?1",
        args![&token, &new.id],
    )
    .await?;
    let sql = format!("{MEMBER} WHERE id = ?1");
    let member = tx.only(&sql, args![&new.id], member).await?;
    Ok(Admission { member, cluster })
}

pub(crate) async fn start_node(tx: &mut Tx, id: Uuid, boot: Uuid, address: String) -> Outcome<()> {
    let sql = format!("{MEMBER} WHERE id = ?1 AND wanted <> 'removed'");
    let there = tx.first(&sql, args![&id], member).await?;
    let there = there.ok_or(StoreError::NotFound)?;
    if there.address != address {
        next_revision(tx).await?;
        let sql = "SELECT name FROM cluster_node
                   WHERE address = ?1 AND id <> ?2 AND wanted <> 'removed'";
        let clash = tx.first(sql, args![&address, &id], |_| Ok(())).await?;
        if clash.is_some() {
            return Err(taken("address", &address));
        }
        tx.run(
            "UPDATE cluster_node SET address = ?2 WHERE id = ?1",
            args![&id, &address],
        )
        .await?;
        let (before, after) = (
            json!({"address": there.address}),
            json!({"address": address}),
        );
        let actor = Actor(format!("node {}", there.name));
        log(tx, &actor, "cluster_node", id, Some(&before), Some(&after)).await?;
    }
    let sql = "UPDATE cluster_node SET boot = ?2 WHERE id = ?1";
    tx.run(sql, args![&id, &boot]).await?;
    Ok(())
}

pub(crate) async fn want(
    tx: &mut Tx,
    actor: Actor,
    name: String,
    wanted: Wanted,
) -> Outcome<Member> {
    let revision = next_revision(tx).await?;
    let sql = format!("{MEMBER} WHERE name = ?1 AND wanted <> 'removed'");
    let there = tx.first(&sql, args![&name], member).await?;
    let there = there.ok_or(StoreError::NotFound)?;
    tx.run(
        "UPDATE cluster_node SET wanted = ?2, wanted_at = ?3 WHERE id = ?1",
        args![&there.id, wanted.as_str(), revision],
    )
    .await?;
    let (before, after) = (
        json!({"name": name, "wanted": there.wanted.as_str()}),
        json!({"name": name, "wanted": wanted.as_str()}),
    );
    let id = there.id;
    if wanted == Wanted::Removed {
        super::ip_addresses::forget(tx, id).await?;
    }
    log(tx, &actor, "cluster_node", id, Some(&before), Some(&after)).await?;
    Ok(Member {
        wanted,
        wanted_at: unsigned(revision),
        ..there
    })
}

/// The row of the lease.
struct Held {
    holder: Option<Uuid>,
    boot: Option<Uuid>,
    epoch: i64,
    until_us: i64,
}

async fn held(tx: &mut Tx, lock: &str) -> Outcome<Held> {
    let sql = format!(
        "SELECT epoch, until_us, coalesce(holder, ?2), coalesce(boot, ?2) FROM cluster_lease
         WHERE name = ?1{lock}"
    );
    let nobody = Arg::Bytes(&[]);
    let found = tx
        .first(&sql, &[Arg::Text(LEADER), nobody], |row| {
            Ok(Held {
                epoch: row.int(0)?,
                until_us: row.int(1)?,
                holder: Uuid::from_slice(row.bytes(2)?).ok(),
                boot: Uuid::from_slice(row.bytes(3)?).ok(),
            })
        })
        .await?;
    found.ok_or_else(|| StoreError::NotFound.into())
}

pub(crate) async fn leader(tx: &mut Tx) -> Outcome<Lease> {
    let held = held(tx, "").await?;
    let now_us = tx.clock_us().await?;
    Ok(Lease {
        holder: held.holder,
        mine: false,
        epoch: unsigned(held.epoch),
        until_us: held.until_us,
        now_us,
    })
}

pub(crate) async fn lead(tx: &mut Tx, id: Uuid, boot: Uuid, ttl_ms: u32) -> Outcome<Lease> {
    let lock = tx.lock_rows("cluster_lease");
    let held = held(tx, &lock).await?;
    // Read behind the lock: time passes while another writer has it.
    let now_us = tx.clock_us().await?;
    let until_us = now_us + i64::from(ttl_ms) * 1_000;
    let running = held.until_us > now_us;
    let mine = held.boot == Some(boot);
    if running && !mine {
        return Ok(Lease {
            holder: held.holder,
            mine: false,
            epoch: unsigned(held.epoch),
            until_us: held.until_us,
            now_us,
        });
    }
    let epoch = held.epoch + i64::from(!(running && mine));
    tx.run(
        "UPDATE cluster_lease SET holder = ?2, boot = ?3, epoch = ?4, until_us = ?5 WHERE name = ?1",
        args![LEADER, &id, &boot, epoch, until_us],
    )
    .await?;
    if epoch != held.epoch {
        tx.run(
            "INSERT INTO cluster_term (epoch, holder, boot, since_us) VALUES (?1, ?2, ?3, ?4)",
            args![epoch, &id, &boot, now_us],
        )
        .await?;
    }
    Ok(Lease {
        holder: Some(id),
        mine: true,
        epoch: unsigned(epoch),
        until_us,
        now_us,
    })
}

pub(crate) async fn resign(tx: &mut Tx, boot: Uuid) -> Outcome<()> {
    tx.run(
        "UPDATE cluster_lease SET until_us = 0 WHERE name = ?1 AND boot = ?2",
        args![LEADER, &boot],
    )
    .await?;
    Ok(())
}

pub(crate) async fn record_step(tx: &mut Tx, boot: Uuid, step: Step) -> Outcome<()> {
    let lock = tx.lock_rows("cluster_lease");
    let held = held(tx, &lock).await?;
    let now_us = tx.clock_us().await?;
    let epoch = signed(step.epoch);
    if held.epoch != epoch || held.boot != Some(boot) || held.until_us <= now_us {
        return Err(StoreError::from(ClusterRefusal::NotLeader { epoch: step.epoch }).into());
    }
    tx.run(
        "INSERT INTO cluster_step (epoch, holder, node, wanted, wanted_at, outcome, detail, at_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        args![
            epoch,
            &step.holder,
            &step.node,
            step.wanted.as_str(),
            signed(step.wanted_at),
            &step.outcome,
            &step.detail,
            now_us
        ],
    )
    .await?;
    Ok(())
}

pub(crate) async fn steps(tx: &mut Tx, limit: u32) -> Outcome<Vec<Step>> {
    tx.all(
        "SELECT epoch, holder, node, wanted, wanted_at, outcome, detail, at_us FROM cluster_step
         ORDER BY seq DESC LIMIT ?1",
        args![i64::from(limit)],
        |row| {
            Ok(Step {
                epoch: unsigned(row.int(0)?),
                holder: row.uuid(1)?,
                node: row.uuid(2)?,
                wanted: word(row, 3)?,
                wanted_at: unsigned(row.int(4)?),
                outcome: row.text(5)?,
                detail: row.text(6)?,
                at_us: row.int(7)?,
            })
        },
    )
    .await
}
