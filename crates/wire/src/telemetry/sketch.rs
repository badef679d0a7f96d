//! A sketch of durations: how many fell between bounds that grow by a constant factor.
//!
//! It is the exponential histogram of OpenTelemetry at one fixed scale. A fixed scale makes merging
//! exact, in any order: the sketch of all values is the sum of the sketches of their parts, which
//! summaries that adapt to their data do not promise. The factor bounds the error of a quantile
//! relative to the value ([`RELATIVE_ERROR_MAX`]), which is what latencies over six decades need.

use crate::protobuf::{Fields, varint};

/// Bounds double within 2^`SCALE` buckets. Source: OpenTelemetry metrics data model.
pub(super) const SCALE: i32 = 5;
/// Buckets up to twice a value.
const PER_OCTAVE: i32 = 1 << SCALE;
/// The lowest bucket ends just above 2^-20 s, about a microsecond; all below is in it.
pub(super) const INDEX_MIN: i32 = -20 * PER_OCTAVE;
/// The highest bucket ends at 2^13 s, over two hours; all above is in it.
pub(super) const INDEX_MAX: i32 = 13 * PER_OCTAVE - 1;

/// How far a quantile may be from the true one, relative to it: (f - 1) / (f + 1) with the factor
/// f = 2^(1/32) between bounds.
pub const RELATIVE_ERROR_MAX: f64 = 0.010_831;

const MANTISSA: u64 = (1 << 52) - 1;

/// Mantissas of 2^(k/32), whose exponent is that of 1.
const BOUNDS: [u64; PER_OCTAVE as usize] = bounds();
/// For the highest 6 bits of a mantissa: the last bound that is at or below all that begin so.
const FIRST: [u8; 64] = first();

const fn bounds() -> [u64; PER_OCTAVE as usize] {
    let mut factor = 2.0_f64;
    let mut halvings = 0;
    while halvings < SCALE {
        factor = square_root(factor);
        halvings += 1;
    }
    let mut bounds = [0; PER_OCTAVE as usize];
    let (mut bound, mut at) = (1.0_f64, 0);
    while at < bounds.len() {
        bounds[at] = bound.to_bits() & MANTISSA;
        bound *= factor;
        at += 1;
    }
    bounds
}

/// By Newton's method, for 1 to 2.
const fn square_root(of: f64) -> f64 {
    let (mut root, mut steps) = (of, 0);
    while steps < 40 {
        root = 0.5 * (root + of / root);
        steps += 1;
    }
    root
}

const fn first() -> [u8; 64] {
    let mut first = [0; 64];
    let mut slot = 0;
    while slot < first.len() {
        let start = (slot as u64) << 46;
        let mut at = 0;
        while at + 1 < BOUNDS.len() && BOUNDS[at + 1] <= start {
            at += 1;
        }
        first[slot] = at as u8;
        slot += 1;
    }
    first
}

/// Counts of durations by size; see the module.
#[derive(Clone, Debug, Default)]
pub struct Sketch {
    /// Index of the first of `counts`.
    low: i32,
    /// May begin and end with zeros.
    counts: Vec<u64>,
    zeros: u64,
    sum_ns: u64,
}

impl PartialEq for Sketch {
    fn eq(&self, other: &Sketch) -> bool {
        self.sum_ns == other.sum_ns
            && self.zeros == other.zeros
            && self.buckets().eq(other.buckets())
    }
}

impl Eq for Sketch {}

impl Sketch {
    /// Adds a duration in nanoseconds.
    #[inline]
    pub fn record(&mut self, nanoseconds: u64) {
        self.sum_ns = self.sum_ns.saturating_add(nanoseconds);
        match nanoseconds {
            0 => self.zeros = self.zeros.saturating_add(1),
            _ => self.add(index(nanoseconds as f64 / 1e9), 1),
        }
    }

    /// Adds `count` durations to a bucket.
    #[inline]
    pub(super) fn add(&mut self, index: i32, count: u64) {
        let index = index.clamp(INDEX_MIN, INDEX_MAX);
        let at = index.wrapping_sub(self.low);
        let found = usize::try_from(at).ok();
        match found.and_then(|at| self.counts.get_mut(at)) {
            Some(bucket) => *bucket = bucket.saturating_add(count),
            None => self.grow(index, count),
        }
    }

    #[cold]
    fn grow(&mut self, index: i32, count: u64) {
        if self.counts.is_empty() {
            self.low = index;
        }
        if index < self.low {
            let more = (self.low - index) as usize;
            self.counts.splice(..0, std::iter::repeat_n(0, more));
            self.low = index;
        }
        let at = (index - self.low) as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] = self.counts[at].saturating_add(count);
    }

    pub(super) fn add_zeros(&mut self, count: u64) {
        self.zeros = self.zeros.saturating_add(count);
    }

    pub(super) fn add_sum_ns(&mut self, more: u64) {
        self.sum_ns = self.sum_ns.saturating_add(more);
    }

    /// Adds what another sketch has counted.
    pub fn merge(&mut self, other: &Sketch) {
        for (index, count) in other.buckets() {
            self.add(index, count);
        }
        self.add_zeros(other.zeros);
        self.add_sum_ns(other.sum_ns);
    }

    /// Buckets that are not empty, by index: it holds durations in seconds above 2^(index/32) and up
    /// to 2^((index+1)/32).
    pub(super) fn buckets(&self) -> impl Iterator<Item = (i32, u64)> {
        let low = self.low;
        let all = self.counts.iter().enumerate();
        all.filter(|(_, count)| **count > 0)
            .map(move |(at, count)| (low + at as i32, *count))
    }

    /// Durations of zero.
    pub(super) fn zeros(&self) -> u64 {
        self.zeros
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        let all = self.counts.iter().copied();
        all.fold(self.zeros, u64::saturating_add)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Their sum in nanoseconds; it does not grow beyond 2^64-1.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The duration in seconds that a part `q` (0 to 1) of all is not above, at most
    /// [`RELATIVE_ERROR_MAX`] off; `None` if there is none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let rank = (q.clamp(0.0, 1.0) * count as f64).ceil().max(1.0) as u64;
        if count == 0 {
            return None;
        }
        let mut below = self.zeros;
        if below >= rank {
            return Some(0.0);
        }
        let mut last = INDEX_MIN;
        for (index, count) in self.buckets() {
            below = below.saturating_add(count);
            last = index;
            if below >= rank {
                break;
            }
        }
        let (lower, upper) = (bound(last), bound(last + 1));
        Some(2.0 * lower * upper / (lower + upper))
    }

    /// Bytes that it takes beside its own size.
    pub fn heap_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u64>()
    }

    /// How many durations are not above 2^`exponent` seconds, for -19 to 12. Exact, as that is a
    /// bound.
    pub fn count_up_to(&self, exponent: i32) -> u64 {
        let end = exponent.saturating_mul(PER_OCTAVE);
        let all = self.buckets().take_while(|(index, _)| *index < end);
        all.fold(self.zeros, |sum, (_, count)| sum.saturating_add(count))
    }

    /// The form in which it is stored: numbers of zeros and nanoseconds, then for each bucket that is
    /// not empty its distance from the one before (from the lowest possible for the first) and its
    /// count. All are LEB128.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        varint(&mut out, self.zeros);
        varint(&mut out, self.sum_ns);
        let mut before = INDEX_MIN;
        for (index, count) in self.buckets() {
            varint(&mut out, (index - before) as u64);
            varint(&mut out, count);
            before = index;
        }
        out
    }

    /// Reads [`to_bytes`](Sketch::to_bytes); `None` if it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Sketch> {
        let mut fields = Fields(bytes);
        let mut sketch = Sketch {
            zeros: fields.varint().ok()?,
            sum_ns: fields.varint().ok()?,
            ..Sketch::default()
        };
        let mut index = INDEX_MIN;
        while !fields.0.is_empty() {
            let distance = i32::try_from(fields.varint().ok()?).ok()?;
            index = index.checked_add(distance).filter(|it| *it <= INDEX_MAX)?;
            sketch.add(index, fields.varint().ok()?);
        }
        Some(sketch)
    }
}

/// The bucket of a positive, normal number of seconds.
#[inline]
fn index(seconds: f64) -> i32 {
    let bits = seconds.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = bits & MANTISSA;
    let mut at = usize::from(FIRST[(mantissa >> 46) as usize]);
    // a slot is narrower than any bucket, so at most one bound lies in it
    if at + 1 < BOUNDS.len() && BOUNDS[at + 1] < mantissa {
        at += 1;
    }
    // bounds belong to the bucket below them
    let below = i32::from(BOUNDS[at] >= mantissa);
    exponent * PER_OCTAVE + at as i32 - below
}

/// The lower bound of a bucket, in seconds.
fn bound(index: i32) -> f64 {
    (f64::from(index) / f64::from(PER_OCTAVE)).exp2()
}
