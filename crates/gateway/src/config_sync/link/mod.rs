//! The rules of order and time of the link, without clock, socket or dice.

mod rpc;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::{Report, SyncVersion};
use sallyport_wire::config_sync::rpc::{Message, RpcError};
use sallyport_wire::config_sync::{
    ErrorReport, PING_INTERVAL_SECS, RECONNECT_SECS, SILENCE_SECS_MAX,
};

use rpc::Session;
pub use rpc::{Changes, Synced};

/// The intervals of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two PINGs.
    pub ping: Duration,
    /// Without a frame the link counts as dead.
    pub silence: Duration,
    /// Pause before dialling again, drawn uniformly for each attempt.
    pub reconnect: RangeInclusive<Duration>,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            ping: Duration::from_secs(PING_INTERVAL_SECS),
            silence: Duration::from_secs(SILENCE_SECS_MAX),
            reconnect: Duration::from_secs(*RECONNECT_SECS.start())
                ..=Duration::from_secs(*RECONNECT_SECS.end()),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The deadline has come (or just time has passed).
    Tick,
    /// The WebSocket of protocol v1 is open.
    Connected {
        /// Whether the control plane wants to hear of what is refused.
        takes_errors: bool,
    },
    /// That of protocol v2 is open, and hellos were exchanged.
    ConnectedRpc {
        /// Whether the control plane is one of ours.
        own: bool,
    },
    /// Bytes arrived, though no whole frame yet.
    Heard,
    /// A frame arrived.
    Received(Frame),
    /// The connection could not be made, or is gone.
    Lost,
    /// A configuration is refused, or entities of it; `Applied` or `Refused` follows.
    Objected(Box<ErrorReport>),
    /// A configuration is in force; its hash.
    Applied(ConfigHash),
    /// A configuration was not put in force; the previous one stays.
    Refused,
    /// What became of changes.
    Synced(Synced),
    /// Changes that were in force are kept, too.
    Settled(Report),
}

/// A frame of the control plane.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// Binary, on protocol v2: what is in it.
    Rpc(Vec<Result<Message, RpcError>>),
    /// PING, on protocol v2.
    Ping,
    /// Binary: a configuration, still compressed.
    Payload(Vec<u8>),
    /// PONG, or one that means nothing on this link: only a sign of life.
    Other,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open a connection.
    Dial,
    /// Write a frame.
    Send(Outgoing),
    /// Decode and apply this configuration, then report `Applied` or `Refused`.
    Apply(Vec<u8>),
    /// Read and apply these changes, then report `Synced`.
    ApplyChanges(Changes),
    /// The control plane is silent: close the connection.
    HangUp,
}

/// The only frames a data plane ever sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// `basic_info`.
    Hello,
    /// PING with the hash in force.
    Ping(ConfigHash),
    /// What was refused; on protocol v1, and only to who takes it.
    Error(Box<ErrorReport>),
    /// PONG; on protocol v2 only.
    Pong,
    /// A message of protocol v2, as JSON.
    Rpc(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { until: Instant },
    Dialling,
    Up { heard: Instant, ping_at: Instant },
}

/// The state of the link.
///
/// Hello and PING go out as soon as the connection is open, then a PING each interval and after
/// each applied configuration. One configuration is applied at a time; of those that arrive
/// meanwhile only the newest is kept.
#[derive(Debug)]
pub struct Link {
    timings: Timings,
    phase: Phase,
    hash: ConfigHash,
    applying: bool,
    next: Option<Vec<u8>>,
    /// What the control plane calls what is in force.
    version: SyncVersion,
    /// On protocol v2.
    rpc: Option<Session>,
    /// Whether the control plane at the other end takes errors on protocol v1.
    takes_errors: bool,
    dice: u64,
}

impl Link {
    /// A link that dials at its first tick. `hash` is in force, which the control plane calls
    /// `version`; `seed` feeds the pauses.
    pub fn new(
        now: Instant,
        timings: Timings,
        (hash, version): (ConfigHash, SyncVersion),
        seed: u64,
    ) -> Link {
        let phase = Phase::Waiting { until: now };
        Link {
            timings,
            phase,
            hash,
            applying: false,
            next: None,
            version,
            rpc: None,
            takes_errors: false,
            dice: seed,
        }
    }

    /// The hash in force.
    pub fn hash(&self) -> ConfigHash {
        self.hash
    }

    /// When a `Tick` is due; `None` while dialling, which has limits of its own.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Dialling => None,
            Phase::Up { heard, ping_at } => {
                let own = ping_at.min(heard + self.timings.silence);
                let asked = self.rpc.as_ref().and_then(Session::deadline);
                Some(asked.map_or(own, |asked| asked.min(own)))
            }
        }
    }

    /// Takes an event that happened at `now`; returns what to do, in order.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        match event {
            Event::Tick => self.tick(now),
            Event::Connected { takes_errors } => {
                self.takes_errors = takes_errors;
                self.phase = Phase::Up {
                    heard: now,
                    ping_at: now + self.timings.ping,
                };
                vec![
                    Effect::Send(Outgoing::Hello),
                    Effect::Send(Outgoing::Ping(self.hash)),
                ]
            }
            Event::ConnectedRpc { own } => {
                self.takes_errors = false;
                self.phase = Phase::Up {
                    heard: now,
                    ping_at: now + self.timings.ping,
                };
                let (session, effects) = Session::begin(now, own, self.version, self.hash);
                self.rpc = Some(session);
                effects
            }
            Event::Heard => {
                self.heard(now);
                Vec::new()
            }
            Event::Received(frame) => {
                self.heard(now);
                match frame {
                    Frame::Other => Vec::new(),
                    Frame::Ping => vec![Effect::Send(Outgoing::Pong)],
                    Frame::Rpc(messages) => match &mut self.rpc {
                        Some(session) => session.received(now, messages),
                        None => Vec::new(),
                    },
                    Frame::Payload(payload) => {
                        self.next = Some(payload);
                        self.apply_next()
                    }
                }
            }
            Event::Lost => {
                self.lost(now);
                Vec::new()
            }
            Event::Synced(synced) => {
                match &synced {
                    Synced::Done(report) => {
                        (self.hash, self.version) = (report.config_hash, report.version);
                    }
                    Synced::InForce {
                        version,
                        config_hash,
                        ..
                    } => (self.hash, self.version) = (*config_hash, *version),
                    Synced::Elsewhere | Synced::Diverged | Synced::Refused(_) => {}
                }
                match &mut self.rpc {
                    Some(session) => session.synced(now, synced, self.hash),
                    None => Vec::new(),
                }
            }
            Event::Settled(report) => match &mut self.rpc {
                Some(session) => session.settled(report),
                None => Vec::new(),
            },
            Event::Objected(report) => match self.phase {
                Phase::Up { .. } if self.takes_errors => {
                    vec![Effect::Send(Outgoing::Error(report))]
                }
                // who does not take it would hang up; who comes later sends the configuration again
                _ => Vec::new(),
            },
            Event::Applied(hash) => {
                self.hash = hash;
                // whole configurations have no name that changes could start from
                self.version = SyncVersion::NONE;
                self.applying = false;
                let mut effects = self.ping(now);
                effects.extend(self.apply_next());
                effects
            }
            Event::Refused => {
                self.applying = false;
                self.apply_next()
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Effect> {
        match self.phase {
            Phase::Waiting { until } if now >= until => {
                self.phase = Phase::Dialling;
                vec![Effect::Dial]
            }
            Phase::Up { heard, .. }
                if now >= heard + self.timings.silence || self.is_overdue(now) =>
            {
                self.lost(now);
                vec![Effect::HangUp]
            }
            Phase::Up { ping_at, .. } if now >= ping_at => {
                let mut effects = self.ping(now);
                let session = self.rpc.as_mut();
                effects.extend(session.map_or_else(Vec::new, |session| session.poll(now)));
                effects
            }
            _ => Vec::new(),
        }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        let due = self.rpc.as_ref().and_then(Session::deadline);
        due.is_some_and(|due| now >= due)
    }

    fn lost(&mut self, now: Instant) {
        self.rpc = None;
        self.phase = Phase::Waiting {
            until: now + self.pause(),
        };
    }

    fn heard(&mut self, now: Instant) {
        if let Phase::Up { heard, .. } = &mut self.phase {
            *heard = now;
        }
    }

    fn ping(&mut self, now: Instant) -> Vec<Effect> {
        match &mut self.phase {
            Phase::Up { ping_at, .. } => {
                *ping_at = now + self.timings.ping;
                vec![Effect::Send(Outgoing::Ping(self.hash))]
            }
            _ => Vec::new(),
        }
    }

    fn apply_next(&mut self) -> Vec<Effect> {
        if self.applying {
            return Vec::new();
        }
        let next = self.next.take();
        self.applying = next.is_some();
        next.map(Effect::Apply).into_iter().collect()
    }

    /// Uniform in the range, to the millisecond.
    fn pause(&mut self) -> Duration {
        let (least, most) = (self.timings.reconnect.start(), self.timings.reconnect.end());
        let span_ms =
            u64::try_from(most.saturating_sub(*least).as_millis()).unwrap_or(u64::MAX - 1);
        *least + Duration::from_millis(self.roll() % (span_ms + 1))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
