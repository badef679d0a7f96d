//! What is dialled without the proxy.

use std::net::IpAddr;
use std::str::FromStr;

/// The list of `NO_PROXY`: names, with everything below them, addresses, networks, or `*`.
///
/// What is none of these never matches, as everywhere else where this variable is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy {
    all: bool,
    /// Lower case, without leading dots.
    names: Vec<String>,
    /// Address and length of the prefix.
    nets: Vec<(IpAddr, u8)>,
}

impl NoProxy {
    /// Reads the comma-separated list.
    pub fn parse(text: &str) -> NoProxy {
        let mut list = NoProxy::default();
        for item in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            if item == "*" {
                list.all = true;
            } else if let Some(net) = net(item) {
                list.nets.push(net);
            } else {
                let name = item.trim_start_matches("*.").trim_start_matches('.');
                list.names.push(name.trim_end_matches('.').to_lowercase());
            }
        }
        list
    }

    /// Whether `host`, a name or an address, is dialled directly.
    pub fn has(&self, host: &str) -> bool {
        if self.all {
            return true;
        }
        if let Ok(address) = IpAddr::from_str(host) {
            return self.nets.iter().any(|net| contains(*net, address));
        }
        let host = host.trim_end_matches('.').to_lowercase();
        self.names.iter().any(|name| {
            host.strip_suffix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

fn net(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => length.parse().ok().filter(|it| *it <= most)?,
        None => most,
    };
    Some((address, length))
}

fn contains((net, length): (IpAddr, u8), address: IpAddr) -> bool {
    let (net, address, width) = match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            (u128::from(net.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => (net.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let rest = width - u32::from(length);
    (net ^ address).checked_shr(rest).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: &str, host: &str, expected: bool) {
        assert_eq!(
            NoProxy::parse(list).has(host),
            expected,
            "{host} in {list:?}"
        );
    }

    #[test]
    fn lists_are_read_as_everywhere_else() {
        check("", "a.example", false);
        check("*", "a.example", true);
        check("example", "example", true);
        check("Example.", "a.EXAMPLE.", true);
        check(".example", "a.example", true);
        check("*.example", "a.b.example", true);
        check("example", "counterexample", false);
        check("a.example, b.example", "b.example", true);
        check("10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("0.0.0.0/0", "11.1.2.3", true);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("2001:db8::/32", "2001:db8::1", true);
        check("::/0", "10.0.0.1", false);
        check("10.0.0.0/33", "10.0.0.1", false);
    }
}
