//! Load balancing on real sockets: failover, health, hashing, names, connections kept.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod algorithms;
mod connections;
mod failover;
mod health;
mod names;
mod running;
