//! The queue itself: what waits, what is lost, when the next batch goes out. No clock of its own.
//!
//! Source: Kong's `kong/tools/queue.lua`. Unlike there, what waits already goes out without a pause
//! if no coalescing delay is set.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// What a queue may hold and how it is emptied. Units are those of [`Duration`].
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Most entries that go out together; at least 1.
    pub batch_entries_max: usize,
    /// How long the first entry of a batch waits for others.
    pub coalescing_delay: Duration,
    /// Most entries that wait; at least 1.
    pub entries_max: usize,
    /// Most bytes that wait.
    pub bytes_max: Option<usize>,
    /// For how long a batch is tried again; `None`: not at all.
    pub retry_time: Option<Duration>,
    /// The pause after the first failure; it doubles with each further one.
    pub retry_delay: Duration,
    /// The longest pause.
    pub retry_delay_max: Duration,
    /// Whether entries go out one by one and beside each other, and not batch after batch.
    pub concurrent: bool,
}

/// Entries that wait for their sink, the oldest first.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    entries: VecDeque<Bytes>,
    bytes: usize,
    /// When the first entry of the next batch came.
    since: Option<Instant>,
    /// Nothing more comes: what is there goes out without waiting for more.
    closed: bool,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Older entries that made room for it.
    pub dropped: usize,
    /// It is larger than all that the queue may hold, and is lost.
    pub too_large: bool,
    /// Whoever empties the queue has something to do earlier than before.
    pub wake: bool,
}

/// What there is to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// These go out together.
    Send(Vec<Bytes>),
    /// Nothing before this moment, unless more comes; `None`: not before more comes.
    Wait(Option<Instant>),
    /// Nothing, ever again.
    End,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: Limits) -> Queue {
        Queue {
            limits,
            entries: VecDeque::new(),
            bytes: 0,
            since: None,
            closed: false,
        }
    }

    /// Other limits from now on. Entries that do not fit any more go with the next that comes.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes an entry in; the oldest ones give way where there is no room.
    pub fn push(&mut self, entry: Bytes, now: Instant) -> Pushed {
        let mut pushed = Pushed::default();
        let bytes_max = self.limits.bytes_max.unwrap_or(usize::MAX);
        if entry.len() > bytes_max {
            pushed.too_large = true;
            return pushed;
        }
        while self.entries.len() >= self.limits.entries_max
            || self.bytes.saturating_add(entry.len()) > bytes_max
        {
            if self.pop().is_none() {
                break;
            }
            pushed.dropped += 1;
        }
        self.bytes += entry.len();
        self.entries.push_back(entry);
        self.since.get_or_insert(now);
        let waiting = self.entries.len();
        pushed.wake = waiting == 1 || waiting == self.batch_entries_max();
        pushed
    }

    /// Nothing more comes.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Something comes again.
    pub fn open(&mut self) {
        self.closed = false;
    }

    /// What to do now. What it gives out has left the queue.
    pub fn step(&mut self, now: Instant) -> Step {
        let Some(since) = self.since else {
            return if self.closed {
                Step::End
            } else {
                Step::Wait(None)
            };
        };
        let most = self.batch_entries_max();
        let due = since + self.coalescing_delay();
        if self.entries.len() < most && now < due {
            return Step::Wait(Some(due));
        }
        let count = most.min(self.entries.len());
        let batch: Vec<Bytes> = self.entries.drain(..count).collect();
        self.bytes -= batch.iter().map(Bytes::len).sum::<usize>();
        self.since = (!self.entries.is_empty()).then_some(now);
        Step::Send(batch)
    }

    fn batch_entries_max(&self) -> usize {
        match self.limits.concurrent {
            true => 1,
            false => self.limits.batch_entries_max,
        }
    }

    fn coalescing_delay(&self) -> Duration {
        match self.closed {
            true => Duration::ZERO,
            false => self.limits.coalescing_delay,
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        let oldest = self.entries.pop_front()?;
        self.bytes -= oldest.len();
        if self.entries.is_empty() {
            self.since = None;
        }
        Some(oldest)
    }
}

/// How often a batch was tried, and whether it is tried again.
#[derive(Debug)]
pub struct Tries {
    began: Instant,
    failures: u32,
}

impl Tries {
    /// The first try begins.
    pub fn begin(now: Instant) -> Tries {
        Tries {
            began: now,
            failures: 0,
        }
    }

    /// A try failed: how long to wait for the next, or `None` to give up.
    pub fn failed(&mut self, limits: &Limits, now: Instant) -> Option<Duration> {
        let spent = now.saturating_duration_since(self.began);
        if spent > limits.retry_time? {
            return None;
        }
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let delay = limits.retry_delay.saturating_mul(doubled);
        Some(delay.min(limits.retry_delay_max))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(batch: usize, delay_ms: u64, entries: usize, bytes: Option<usize>) -> Limits {
        Limits {
            batch_entries_max: batch,
            coalescing_delay: Duration::from_millis(delay_ms),
            entries_max: entries,
            bytes_max: bytes,
            retry_time: Some(Duration::from_secs(60)),
            retry_delay: Duration::from_millis(10),
            retry_delay_max: Duration::from_secs(60),
            concurrent: false,
        }
    }

    fn entry(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_batch_waits_for_others_as_long_as_it_may() {
        let start = Instant::now();
        let mut queue = Queue::new(limits(3, 100, 10, None));
        assert_eq!(queue.step(start), Step::Wait(None));
        assert!(queue.push(entry("a"), start).wake);
        assert!(!queue.push(entry("b"), start + ms(10)).wake);
        assert_eq!(
            queue.step(start + ms(50)),
            Step::Wait(Some(start + ms(100)))
        );
        assert_eq!(
            queue.step(start + ms(100)),
            Step::Send(vec![entry("a"), entry("b")])
        );
        // a full batch does not wait
        for text in ["c", "d", "e", "f"] {
            queue.push(entry(text), start + ms(200));
        }
        assert_eq!(
            queue.step(start + ms(200)),
            Step::Send(vec![entry("c"), entry("d"), entry("e")])
        );
        assert_eq!(
            queue.step(start + ms(200)),
            Step::Wait(Some(start + ms(300)))
        );
        queue.close();
        assert_eq!(queue.step(start + ms(201)), Step::Send(vec![entry("f")]));
        assert_eq!(queue.step(start + ms(201)), Step::End);
    }

    #[test]
    fn single_entries_and_no_delay_go_out_at_once() {
        let now = Instant::now();
        let mut queue = Queue::new(limits(1, 1000, 10, None));
        queue.push(entry("a"), now);
        queue.push(entry("b"), now);
        assert_eq!(queue.step(now), Step::Send(vec![entry("a")]));
        assert_eq!(queue.step(now), Step::Send(vec![entry("b")]));
        let mut queue = Queue::new(limits(5, 0, 10, None));
        queue.push(entry("a"), now);
        queue.push(entry("b"), now);
        assert_eq!(queue.step(now), Step::Send(vec![entry("a"), entry("b")]));
        let mut concurrent = limits(5, 1000, 10, None);
        concurrent.concurrent = true;
        let mut queue = Queue::new(concurrent);
        queue.push(entry("a"), now);
        assert_eq!(queue.step(now), Step::Send(vec![entry("a")]));
    }

    #[test]
    fn the_oldest_give_way() {
        let now = Instant::now();
        let mut queue = Queue::new(limits(9, 0, 2, Some(5)));
        assert_eq!(queue.push(entry("a"), now).dropped, 0);
        assert_eq!(queue.push(entry("b"), now).dropped, 0);
        assert_eq!(queue.push(entry("c"), now).dropped, 1, "two at most");
        assert_eq!(
            queue.push(entry("dddd"), now).dropped,
            1,
            "five bytes at most"
        );
        let large = queue.push(entry("eeeeee"), now);
        assert!(large.too_large && large.dropped == 0);
        assert_eq!(queue.step(now), Step::Send(vec![entry("c"), entry("dddd")]));
    }

    #[test]
    fn pauses_double_until_the_time_is_over() {
        let start = Instant::now();
        let mut limits = limits(1, 0, 1, None);
        limits.retry_delay_max = ms(30);
        limits.retry_time = Some(ms(100));
        let mut tries = Tries::begin(start);
        assert_eq!(tries.failed(&limits, start), Some(ms(10)));
        assert_eq!(tries.failed(&limits, start), Some(ms(20)));
        assert_eq!(tries.failed(&limits, start + ms(100)), Some(ms(30)));
        assert_eq!(tries.failed(&limits, start + ms(101)), None);
        limits.retry_time = None;
        assert_eq!(Tries::begin(start).failed(&limits, start), None);
    }

    proptest! {
        /// Whatever comes and goes: bounds hold, order is kept, nothing is lost uncounted.
        #[test]
        fn everything_is_sent_waits_or_is_counted(
            steps in proptest::collection::vec((0_u8..4, 0_usize..9), 1..80),
            batch in 1_usize..5, most in 1_usize..6, bytes in proptest::option::of(1_usize..20),
            delay in 0_u64..50,
        ) {
            let start = Instant::now();
            let mut queue = Queue::new(limits(batch, delay, most, bytes));
            let (mut now, mut pushed, mut sent, mut lost) = (start, 0_u32, Vec::new(), 0);
            for (step, amount) in steps {
                if step < 3 {
                    let mut text = pushed.to_be_bytes().to_vec();
                    text.resize(4 + amount, 0);
                    let did = queue.push(text.into(), now);
                    lost += did.dropped + usize::from(did.too_large);
                    pushed += 1;
                } else {
                    now += ms(amount as u64 * 10);
                    if let Step::Send(out) = queue.step(now) {
                        prop_assert!(!out.is_empty() && out.len() <= batch);
                        sent.extend(out);
                    }
                }
                prop_assert!(queue.len() <= most);
                let waiting: usize = queue.entries.iter().map(Bytes::len).sum();
                prop_assert_eq!(waiting, queue.bytes);
                prop_assert!(waiting <= bytes.unwrap_or(usize::MAX));
                prop_assert_eq!(queue.since.is_none(), queue.is_empty());
            }
            prop_assert_eq!(sent.len() + lost + queue.len(), pushed as usize);
            prop_assert!(sent.windows(2).all(|pair| pair[0][..4] < pair[1][..4]));
        }
    }
}
