//! One token bucket. Time is an argument, and every sum is exact.
//!
//! A bucket holds its content in parts of a token: as many parts to the token as its interval has
//! milliseconds. In one millisecond then drip in exactly as many parts as the interval has tokens,
//! and nothing is ever rounded. Source of the rules: limitd/limitdb `lib/db.js`; where we do
//! otherwise, docs/rate_limit.md says so.

use sallyport_wire::rate_limit::{Level, Taken};

/// A WAIT that would take longer is refused at once.
pub const WAIT_MS_MAX: u64 = 10 * 60 * 1000;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; buckets are filled by it.
    pub ms: u64,
    /// Milliseconds since 1970; what clients are told.
    pub unix_ms: u64,
}

/// What fills a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refill {
    /// Nothing but a PUT.
    Never,
    /// `tokens` per `every_ms`, bit by bit.
    Drip {
        /// At least 1.
        tokens: u32,
        /// At least 1.
        every_ms: u32,
    },
    /// `tokens` at once when `every_ms` have passed since the window's first use.
    Window {
        /// At least 1.
        tokens: u32,
        /// At least 1.
        every_ms: u32,
    },
}

/// What holds for a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Tokens it can hold, at most 2^31 - 1.
    pub size: u32,
    /// What fills it.
    pub refill: Refill,
}

impl Rule {
    /// Parts to the token.
    fn scale(&self) -> u32 {
        match self.refill {
            Refill::Never => 1,
            Refill::Drip { every_ms, .. } | Refill::Window { every_ms, .. } => every_ms,
        }
    }

    /// Parts of `tokens`; below 2^63 as sizes are below 2^31 and scales below 2^32.
    fn parts(&self, tokens: u32) -> i64 {
        i64::from(tokens) * i64::from(self.scale())
    }

    fn capacity(&self) -> i64 {
        self.parts(self.size)
    }
}

/// What a WAIT comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The tokens were there and are taken.
    Taken(Level),
    /// The tokens are reserved; they are there in so many milliseconds.
    Reserved {
        /// From now, at most [`WAIT_MS_MAX`].
        ms: u64,
    },
    /// They will never be there, or too late.
    Never(Level),
}

/// How full a bucket is; a bucket nobody has used is full and need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// In parts of a token; below zero while WAITs have reserved what is yet to come.
    content: i64,
    /// Until when the refill is counted in.
    since_ms: u64,
    scale: u32,
}

impl Bucket {
    /// A full bucket.
    pub fn full(rule: &Rule, now: Now) -> Bucket {
        Bucket {
            content: rule.capacity(),
            since_ms: now.ms,
            scale: rule.scale(),
        }
    }

    /// Takes `count` tokens, or none.
    pub fn take(&mut self, rule: &Rule, count: u32, now: Now) -> Taken {
        self.refill(rule, now);
        let parts = rule.parts(count);
        let conformant = self.content >= parts;
        if conformant {
            self.content -= parts;
        }
        Taken {
            conformant,
            delayed: false,
            level: self.level(rule, now),
        }
    }

    /// Takes up to `most` tokens and says how many.
    pub fn take_up_to(&mut self, rule: &Rule, most: u32, now: Now) -> u32 {
        self.refill(rule, now);
        let there = self.content.max(0) / i64::from(self.scale);
        let taken = u32::try_from(there).unwrap_or(u32::MAX).min(most);
        self.content -= rule.parts(taken);
        taken
    }

    /// Takes `count` tokens now, or reserves them: whoever waits is served in the order of asking,
    /// and before whoever asks to TAKE later.
    pub fn wait(&mut self, rule: &Rule, count: u32, now: Now) -> Waiting {
        let taken = self.take(rule, count, now);
        if taken.conformant {
            return Waiting::Taken(taken.level);
        }
        let short = rule.parts(count).saturating_sub(self.content);
        match self.ms_until(rule, short, now) {
            Some(ms) if ms <= WAIT_MS_MAX && count <= rule.size => {
                self.content -= rule.parts(count);
                Waiting::Reserved { ms }
            }
            _ => Waiting::Never(taken.level),
        }
    }

    /// Adds `count` tokens, or fills the bucket if there is no count. What WAITs have reserved
    /// stays reserved.
    pub fn put(&mut self, rule: &Rule, count: Option<u32>, now: Now) -> Level {
        self.refill(rule, now);
        let count = count.unwrap_or(rule.size).min(rule.size);
        let content = self.content.saturating_add(rule.parts(count));
        self.content = content.min(rule.capacity());
        let mut level = self.level(rule, now);
        if self.content == rule.capacity() {
            level.reset = 0;
        }
        level
    }

    /// Looks at it.
    pub fn get(&mut self, rule: &Rule, now: Now) -> Level {
        self.refill(rule, now);
        self.level(rule, now)
    }

    /// Whether it is as good as unused, and was so `grace_ms` ago.
    pub fn is_idle(&self, rule: &Rule, now: Now, grace_ms: u64) -> bool {
        let mut then = *self;
        let ms = now.ms.saturating_sub(grace_ms);
        then.refill(rule, Now { ms, ..now });
        then.content == rule.capacity()
    }

    /// How long a TAKE of `count` tokens will go on being refused if nobody puts any back;
    /// `None` for ever.
    pub fn refused_ms(&self, rule: &Rule, count: u32, now: Now) -> Option<u64> {
        if count > rule.size {
            return None;
        }
        self.ms_until(rule, rule.parts(count).saturating_sub(self.content), now)
    }

    /// Counts in what has dripped since, and adapts to a rule that is new.
    fn refill(&mut self, rule: &Rule, now: Now) {
        if self.scale != rule.scale() {
            let content = i128::from(self.content) * i128::from(rule.scale());
            let content = content.div_euclid(i128::from(self.scale));
            let (least, most) = (i128::from(i64::MIN), i128::from(i64::MAX));
            self.content = content.clamp(least, most) as i64;
            self.scale = rule.scale();
        }
        // Connections read the clock on their own, so a later call may bring an earlier time.
        // Going back would credit the time between twice.
        let elapsed = now.ms.saturating_sub(self.since_ms);
        let parts = |tokens: u32, times: u64| {
            let parts = u64::from(tokens).saturating_mul(times);
            i64::try_from(parts).unwrap_or(i64::MAX)
        };
        match rule.refill {
            Refill::Never => self.since_ms += elapsed,
            Refill::Drip { tokens, .. } => {
                self.since_ms += elapsed;
                self.content = self.content.saturating_add(parts(tokens, elapsed));
            }
            Refill::Window { tokens, every_ms } => {
                let windows = elapsed / u64::from(every_ms);
                self.since_ms += windows * u64::from(every_ms);
                let more = parts(tokens, windows.saturating_mul(u64::from(every_ms)));
                self.content = self.content.saturating_add(more);
            }
        }
        if self.content >= rule.capacity() {
            self.content = rule.capacity();
            // a window begins with its first use
            self.since_ms = self.since_ms.max(now.ms);
        }
    }

    /// Milliseconds until `parts` more are there; `None` if they never come.
    fn ms_until(&self, rule: &Rule, parts: i64, now: Now) -> Option<u64> {
        let parts = u64::try_from(parts).unwrap_or(0);
        match rule.refill {
            _ if parts == 0 => Some(0),
            Refill::Never => None,
            Refill::Drip { tokens, .. } => Some(parts.div_ceil(u64::from(tokens))),
            Refill::Window { tokens, every_ms } => {
                let every = u64::from(every_ms);
                let windows = parts.div_ceil(u64::from(tokens) * every);
                let begun = now.ms.saturating_sub(self.since_ms);
                Some((windows * every).saturating_sub(begun))
            }
        }
    }

    fn level(&self, rule: &Rule, now: Now) -> Level {
        let missing = rule.capacity().saturating_sub(self.content);
        let reset = self.ms_until(rule, missing, now);
        Level {
            remaining: u32::try_from(self.content.max(0) / i64::from(self.scale)).unwrap_or(0),
            reset: match rule.refill {
                Refill::Never => 0,
                _ => reset.map_or(0, |ms| (now.unix_ms + ms).div_ceil(1000)),
            },
            limit: rule.size,
        }
    }
}
