//! A node of the appliance cluster: its settings, its identity, and what it runs.
//!
//! `init` founds a cluster on this machine, `join` takes this machine into one; both leave an
//! [`Identity`] in the data directory, from which [`Node::start`] runs it. What nodes say to each
//! other is in [`crate::node_control`]; the control plane is a handle that the executable passes in
//! ([`Plane`]).

mod accepts;
mod admission;
mod authority;
mod database;
mod identity;
mod limiter;
mod local;
mod plane;
mod recorded;
mod run;
mod settings;
#[cfg(test)]
mod settings_tests;
mod state;
mod status;
mod work;

pub use admission::{AdmissionError, new_token};
pub(crate) use admission::{admit, admitted};
pub use authority::{Authority, Founding, SealError, Sealer, found};
pub use database::Fatal;
pub(crate) use database::learn;
pub use identity::{Identity, IdentityError, MemberFile};
pub(crate) use identity::{RawRoster, make_directory, read, write};
pub use limiter::LimiterError;
pub use local::{LocalError, TokenWish, Wish, ask, pass_on};
pub(crate) use local::{Refusal, refusal};
pub use plane::{Plane, RunningPlane};
pub use recorded::{GivenHere, RecordsHere};
pub use run::{Node, StartError};
pub use settings::{
    ControlPlane, Database, Healthcheck, NodeControl, RateLimitSection, Secret, Settings,
    SettingsError,
};
pub(crate) use state::Vitals;
pub use state::{Accepts, Facts, LeaseView, State, socket_of};
pub use status::{NodeStatus, Status};
