//! What every role needs from the machine: sockets by contract id, ICMP echo, TLS, certificates, tasks.
//!
//! No listener and no outbound connection exists without an entry of the network contract, so
//! [`listen`](listen::listen) and [`dial`](dial::dial) take a contract id.

pub mod backoff;
pub mod certs;
pub mod datagrams;
pub mod dial;
pub mod forward_proxy;
pub mod icmp;
pub mod listen;
pub mod memory;
pub mod open_files;
pub mod tasks;
pub mod tls;

pub use datagrams::{dial_datagrams, listen_datagrams};
pub use dial::{DialError, dial};
pub use forward_proxy::{ForwardProxy, NoProxy};
pub use listen::{ListenError, ListenOptions, bind, listen};
pub use tasks::Tasks;
