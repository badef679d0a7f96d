//! The store from outside: one suite against both engines, crashes and full disks, and what only
//! PostgreSQL has.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod conformance;
mod crash;
mod dump;
mod postgres;
mod suite;
