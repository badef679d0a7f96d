//! Health of targets, as the balancers of this node see it.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use uuid::Uuid;

use super::error::AdminError;
use crate::balancer::Upstreams;

/// `GET /upstreams/{key}/health`; the upstream as a whole with `balancer_health=1`.
pub(super) fn health(
    upstreams: &Upstreams,
    key: &str,
    node: Uuid,
    query: &[(String, String)],
) -> Result<Value, AdminError> {
    let upstream = upstreams.health_of(key).ok_or(AdminError::NotFound)?;
    let whole = query
        .iter()
        .any(|(name, value)| name == "balancer_health" && value == "1");
    if whole {
        let details = json!({"available_percent": upstream.available_percent});
        let health = json!({
            "id": upstream.id, "name": upstream.name, "health": upstream.health.as_str(),
            "details": details,
        });
        return Ok(json!({"data": health, "node_id": node}));
    }
    let mut list = upstream.to_json();
    list["node_id"] = json!(node);
    Ok(list)
}

/// What `PUT /upstreams/{key}/targets/{target}[/{address}]/{healthy,unhealthy}` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetHealth {
    pub(super) upstream: String,
    pub(super) target: String,
    /// Address and port, or an address with the target's port.
    pub(super) address: Option<String>,
    pub(super) healthy: bool,
}

impl SetHealth {
    /// Settles it, until checks find out otherwise.
    pub(super) fn apply(&self, upstreams: &Upstreams) -> Result<Value, AdminError> {
        let upstream = upstreams.health_of(&self.upstream);
        let upstream = upstream.ok_or(AdminError::NotFound)?;
        let id: Option<Uuid> = self.target.parse().ok();
        let target = upstream
            .targets
            .iter()
            .find(|target| Some(target.id) == id || target.target == self.target);
        let target = target.ok_or(AdminError::NotFound)?;
        let address = match &self.address {
            None => None,
            Some(text) => Some(address(text, &target.target).ok_or(AdminError::NotFound)?),
        };
        upstreams
            .set_healthy(&self.upstream, &target.target, address, self.healthy)
            .map_err(|_| AdminError::NotFound)?;
        Ok(Value::Null)
    }
}

fn address(text: &str, target: &str) -> Option<SocketAddr> {
    let port = || target.rsplit_once(':')?.1.parse().ok();
    let bare = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port()?));
    text.parse().ok().or_else(bare)
}
