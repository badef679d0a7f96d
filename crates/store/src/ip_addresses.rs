//! The published list of addresses, as all processes on the database share it.
//!
//! Who publishes decides what the bodies say; here they are JSON.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use crate::{Store, StoreError, sql};

/// What is known about published addresses, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IpAddresses {
    /// Counts changes of any of it.
    pub revision: u64,
    /// What each origin contributes.
    pub sources: BTreeMap<String, Value>,
    /// Every version that is kept, oldest first.
    pub versions: Vec<Value>,
    /// What will be in force, soonest first.
    pub announced: Vec<Value>,
}

/// The key by which every process signs the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpAddressesKey {
    /// Its public half, PEM.
    pub public_key: String,
    /// The private half, sealed; empty if each process has it from elsewhere.
    pub sealed: Vec<u8>,
}

impl Store {
    /// What is published, and what of.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn ip_addresses(&self) -> Result<IpAddresses, StoreError> {
        self.engine
            .read(|tx| Box::pin(sql::ip_addresses::all(tx)))
            .await
    }

    /// The revision of it alone; 0 before anything is there.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn ip_addresses_revision(&self) -> Result<u64, StoreError> {
        self.engine
            .look(|tx| Box::pin(sql::ip_addresses::revision(tx)))
            .await
    }

    /// Says what a process contributes, in the place of what it did before.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn contribute_ip_addresses(
        &self,
        origin: &str,
        body: Value,
    ) -> Result<(), StoreError> {
        let origin = origin.to_owned();
        self.engine
            .write(move |tx| Box::pin(sql::ip_addresses::contribute(tx, origin, body)))
            .await
    }

    /// As [`Store::contribute_ip_addresses`], for a node of the cluster. What it contributed goes
    /// with it when [`Store::want`] removes it, and not before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is removed or never was.
    pub async fn report_ip_addresses(&self, node: Uuid, body: Value) -> Result<(), StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::ip_addresses::report(tx, node, body)))
            .await
    }

    /// Publishes `version` after those that are there, and announces, if nothing of it changed
    /// since `revision`; whether it was so. The newest `keep` versions are kept.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn publish_ip_addresses(
        &self,
        revision: u64,
        versions: Vec<Value>,
        announced: Vec<Value>,
        keep: u32,
    ) -> Result<bool, StoreError> {
        self.engine
            .write(move |tx| {
                Box::pin(sql::ip_addresses::publish(
                    tx, revision, versions, announced, keep,
                ))
            })
            .await
    }

    /// Keeps a key unless there is one already; the one that is there then.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn keep_ip_addresses_key(
        &self,
        key: IpAddressesKey,
    ) -> Result<IpAddressesKey, StoreError> {
        self.engine
            .write(move |tx| Box::pin(sql::ip_addresses::keep_key(tx, key)))
            .await
    }

    /// The key, if one is kept.
    ///
    /// # Errors
    /// Only failures of the engine.
    pub async fn ip_addresses_key(&self) -> Result<Option<IpAddressesKey>, StoreError> {
        self.engine
            .look(|tx| Box::pin(sql::ip_addresses::key(tx)))
            .await
    }
}
