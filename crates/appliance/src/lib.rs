//! The appliance role: what a cluster node runs for the others.

pub mod rate_limit;
