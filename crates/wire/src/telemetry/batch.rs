//! Numbers of batches, by which one that is sent again is known.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Header that carries a [`BatchId`].
pub const BATCH_HEADER: &str = "sallyport-batch";

/// Which batch of which run of a gateway: `<uuid>/<number>`.
///
/// A run makes up its id when it starts. Numbers begin with 1 and grow; a batch keeps its number
/// however often it is sent, and the next one is only sent when this one was acknowledged or given
/// up. So a receiver has a batch already if its number is not above the last it took of that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchId {
    /// One run of a gateway.
    pub run: Uuid,
    /// Its number there, from 1.
    pub sequence: u64,
}

/// A text is no [`BatchId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{BATCH_HEADER} must be <uuid>/<number from 1>")]
pub struct BatchIdError;

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.sequence)
    }
}

impl FromStr for BatchId {
    type Err = BatchIdError;

    fn from_str(text: &str) -> Result<BatchId, BatchIdError> {
        let (run, sequence) = text.split_once('/').ok_or(BatchIdError)?;
        let run = Uuid::try_parse(run).map_err(|_| BatchIdError)?;
        let digits = !sequence.is_empty() && sequence.bytes().all(|byte| byte.is_ascii_digit());
        let sequence = sequence.parse().ok().filter(|number| *number > 0);
        let sequence = sequence.filter(|_| digits).ok_or(BatchIdError)?;
        Ok(BatchId { run, sequence })
    }
}
