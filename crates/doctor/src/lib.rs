//! The doctor: proves each row of the network contract from the machine on which it runs.
//!
//! [`plan`] makes checks of the rows that apply (pure), [`run`] tries them and notes what it saw,
//! [`judge`] turns that into a verdict with whom to ask and the rule that is missing (pure). The
//! doctor dials only what a row of a catalogue says, and sends nothing but what proves the row.
//!
//! A crate of its own: only the executable uses it, so a change here rebuilds no role.

mod check;
mod interception;
mod judge;
mod listen;
mod plan;
mod probe;
pub mod report;
mod seen;
mod surface;
pub mod wire;

pub use check::{Check, Talk, Target, Then, Via, ViaError};
pub use interception::across;
pub use judge::{Fate, Fix, Status, Verdict, judge, judge_idle};
pub use listen::{GREETING, Listening, ListeningError, inbound, listen};
pub use plan::{Here, Plan, Skipped, plan};
pub use probe::{FetchError, Fetched, Options, fetch, idle, run};
pub use report::Outcome;
pub use seen::{
    Answer, Attempt, CertFault, End, Handshake, Icmp, Resolution, Seen, Shown, Small, Talked,
};
pub use surface::{Socket, SurfaceError, bound, surface, unknown};
