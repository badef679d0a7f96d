//! Machines that are refused and keep trying: the same refusal is logged seldom.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

/// How often the same refusal is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Refusals that are remembered.
const REMEMBERED_MAX: usize = 64;

/// What was refused lately.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<String, Instant>>);

impl Refusals {
    /// Logs that `who` was refused; as a warning once in a while.
    pub(crate) fn note(&self, who: &str, why: &str) {
        let key = format!("{who} {why}");
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        refused.retain(|_, at| now.duration_since(*at) < LOG_EVERY);
        if refused.contains_key(&key) || refused.len() >= REMEMBERED_MAX {
            debug!(who, why, "refused between nodes");
        } else {
            refused.insert(key, now);
            warn!(who, why, "refused between nodes");
        }
    }
}
