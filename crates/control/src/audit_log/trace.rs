//! The id that joins a request, its answer and its records.

use std::future::Future;

use http::HeaderMap;

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that this task serves; a new one outside of any.
pub(crate) fn current() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_else(|_| fresh())
}

/// Runs a request's work under its id.
pub(super) async fn scope<T>(id: String, work: impl Future<Output = T>) -> T {
    CURRENT.scope(id, work).await
}

/// The id that the client sent in `traceparent` (W3C Trace Context), or a new one: 32 hexadecimal
/// digits.
pub(super) fn of(headers: &HeaderMap) -> String {
    let sent = headers.get("traceparent").and_then(|it| it.to_str().ok());
    sent.and_then(parse).unwrap_or_else(fresh)
}

fn fresh() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn parse(traceparent: &str) -> Option<String> {
    let id = traceparent.split('-').nth(1)?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let good = id.len() == 32 && id.bytes().all(hex) && id.bytes().any(|byte| byte != b'0');
    good.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trace_id_of_the_standard_is_taken() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            parse(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(),
            Some(id)
        );
        for bad in [
            "",
            "00",
            "00-xyz-1-1",
            "00-00000000000000000000000000000000-1-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(fresh().len(), 32);
    }
}
