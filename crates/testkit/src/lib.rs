//! Drives built executables from outside: processes, ports, HTTP, an upstream, foreign clients, load.
//!
//! Everything is blocking and on std threads, so that a test reads from top to bottom and a
//! stuck product cannot stall the harness. Two rules hold everywhere: a wait has a [`Deadline`]
//! and names what it waits for, and whatever a value started ends when the value is dropped.
//!
//! ```no_run
//! use sallyport_testkit::{Deadline, Echo, Program, free_port, http};
//!
//! let upstream = Echo::start();
//! let port = free_port();
//! let gateway = Program::new("target/debug/sallyport")
//!     .args(["gateway", "-c", "kong.conf"])
//!     .env("KONG_PROXY_LISTEN", format!("127.0.0.1:{port}"))
//!     .start();
//! gateway.wait_for_line(r"ready", Deadline::secs(20));
//! let answer = http::get(format!("http://127.0.0.1:{port}/echo")).send().unwrap();
//! assert_eq!(answer.status, 200);
//! assert_eq!(upstream.count(), 1);
//! ```

mod deadline;
mod dns;
mod echo;
mod fault_proxy;
mod foreign;
pub mod frames;
pub mod http;
mod load;
mod message;
mod output;
mod ports;
mod postgres;
mod program;
mod scripted;
mod small_disk;

pub use deadline::{Deadline, eventually, eventually_some};
pub use dns::{Dns, DnsAnswer, DnsData, DnsRecord};
pub use echo::{Echo, Seen};
pub use fault_proxy::{Fault, FaultProxy};
pub use foreign::foreign;
pub use load::{Load, LoadReport};
pub use message::Headers;
pub use output::{Found, NoSuchLine};
pub use ports::{free_port, free_ports};
pub use postgres::{Postgres, PostgresSetup};
pub use program::{Finished, Launch, Program};
pub use scripted::{Peer, Scripted};
pub use small_disk::SmallDisk;
