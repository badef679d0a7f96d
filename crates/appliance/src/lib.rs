//! The appliance role: what a cluster node runs for the others.

pub mod appliance_cli;
pub mod backup;
pub mod maintenance;
pub mod node;
pub mod node_control;
pub mod rate_limit;
