//! Names to addresses, as the programs of this machine see them.

use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::seen::Resolution;

pub(super) async fn resolve(name: &str, limit: Duration) -> Resolution {
    match timeout(limit, lookup_host((name, 0))).await {
        Err(_) => Resolution::Silent,
        Ok(Ok(found)) => {
            let mut addresses = Vec::new();
            for address in found.map(|it| it.ip()) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            match addresses.is_empty() {
                true => Resolution::NoSuchName,
                false => Resolution::Addresses(addresses),
            }
        }
        Ok(Err(error)) => judge(&error.to_string()),
    }
}

/// The system's library has codes for this, which std turns into text.
fn judge(text: &str) -> Resolution {
    let none = ["not known", "No address associated", "does not resolve"];
    match none.iter().any(|sign| text.contains(sign)) {
        true => Resolution::NoSuchName,
        false => {
            let reason = text.rsplit(": ").next().unwrap_or(text);
            Resolution::Failed(reason.to_owned())
        }
    }
}
