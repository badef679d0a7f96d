//! The network contract: every port, host name, direction and peer of the platform, as data.
//!
//! Listeners take their default port from here, host names are rendered and recognised from here,
//! and documents and firewall rules are rendered from here. The data is in `data/*.toml`; the file
//! format is described in `docs/network_contract.md`. Pure: no socket, file, clock or randomness.

mod address;
mod catalogue;
mod diff;
mod entry;
mod explain;
mod host;
mod installation;
mod lint;
mod policy;
mod port;
mod published;
pub mod render;
mod row;

use std::sync::OnceLock;

pub use address::{Net, NetError};
pub use catalogue::{Catalogue, CatalogueError, HostMatch};
pub use diff::{Change, DiffError, diff};
pub use entry::{Direction, Entry, EntryId, Owner, Role, Tls};
pub use explain::{explain, find};
pub use host::{HostPattern, NameError, Names, is_label};
pub use installation::{
    ControlPlane, Installation, InstallationError, Node, Portal, installation_rows,
};
pub use lint::{LintFinding, lint};
pub use policy::{Packet, Peers, Policy, Rule, Side, View, Withheld, policy};
pub use port::{Flow, Port, PortError, PortUse, Transport};
pub use published::{Addresses, PublishedChange, PublishedError, PublishedList};
pub use row::{Filter, FilterError, Row, rows};

/// The product's own contract, parsed once.
///
/// # Panics
/// If the embedded file is broken, which the tests of this crate rule out.
pub fn catalogue() -> &'static Catalogue {
    static PARSED: OnceLock<Catalogue> = OnceLock::new();
    PARSED.get_or_init(|| embedded(include_str!("../data/sallyport.toml")))
}

/// The ports and host names of the hosted control plane (`konghq.com`).
///
/// # Panics
/// As [`catalogue`].
pub fn hosted_control_plane() -> &'static Catalogue {
    static PARSED: OnceLock<Catalogue> = OnceLock::new();
    PARSED.get_or_init(|| embedded(include_str!("../data/hosted_control_plane.toml")))
}

/// The ports and external destinations of the original appliance.
///
/// # Panics
/// As [`catalogue`].
pub fn original_appliance() -> &'static Catalogue {
    static PARSED: OnceLock<Catalogue> = OnceLock::new();
    PARSED.get_or_init(|| embedded(include_str!("../data/original_appliance.toml")))
}

/// The entry `id` of the product's own contract.
///
/// # Panics
/// If no such entry exists: listening or dialling outside the contract is a programming error.
#[track_caller]
pub fn entry(id: &str) -> &'static Entry {
    match catalogue().entry(id) {
        Some(entry) => entry,
        None => panic!(
            "`{id}` is not in the network contract; add it to crates/contract/data/sallyport.toml"
        ),
    }
}

fn embedded(text: &str) -> Catalogue {
    match Catalogue::parse(text) {
        Ok(catalogue) => catalogue,
        Err(error) => panic!("the embedded network contract is broken: {error}"),
    }
}
