//! What a machine that joins says, and what it is told.

use serde::{Deserialize, Serialize};

/// `POST /join`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The token's secret, 32 hexadecimal digits.
    pub secret: String,
    /// The name that the machine wants.
    pub name: String,
    /// What the others shall dial, `address:port`.
    pub address: String,
    /// A `CERTIFICATE REQUEST` section (PEM).
    pub request: String,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The answer to a machine that may join.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admitted {
    /// The cluster's id.
    pub cluster: String,
    /// The node's id.
    pub id: String,
    /// `data` or `witness`, as the token said.
    pub role: String,
    /// The cluster's authority (PEM).
    pub authority: String,
    /// The node's certificate (PEM).
    pub certificate: String,
    /// What opens the cluster's keys, base64; empty for a witness.
    pub secret: String,
    /// Address of the database; empty for a witness.
    pub database: String,
    /// Every node, as JSON.
    pub roster: serde_json::Value,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
