//! `sallyport rate-limit`: limitd's own clients, strangers, and several nodes.

mod bad_input;
mod clients;
mod gateways;
mod in_redis;
mod lab;
mod nodes;
mod promises;
mod restarts;
