//! Batches of telemetry; what was read is written and read the same. Sketches as they are stored.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_wire::telemetry::{Batch, BatchId, Sketch, status_text};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(decoded) = Batch::decode(bytes, 1_000) {
        let again = Batch::decode(&decoded.batch.encode(), usize::MAX).expect("what we write");
        // sums are written as numbers of seconds, which have fewer digits than nanoseconds
        assert_eq!(again.batch.records.len(), decoded.batch.records.len());
        for (again, before) in again.batch.records.iter().zip(&decoded.batch.records) {
            assert_eq!(again.dimensions, before.dimensions);
            assert_eq!(again.totals.requests(), before.totals.requests());
            assert_eq!(again.totals.latency.quantile(0.5), before.totals.latency.quantile(0.5));
        }
    }
    if let Some(sketch) = Sketch::from_bytes(bytes) {
        assert_eq!(Sketch::from_bytes(&sketch.to_bytes()), Some(sketch));
    }
    _ = status_text(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(id) = text.parse::<BatchId>()
    {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
});
