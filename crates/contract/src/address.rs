//! Networks: one address or a range of them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An IPv4 or IPv6 network without host bits; a single address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net(IpNet);

/// Text that is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Not of the form `192.0.2.1`, `192.0.2.0/24` or `2001:db8::/32`.
    #[error("`{0}` is neither an IP address nor a network such as `192.0.2.0/24`")]
    Form(String),
    /// Bits are set beyond the prefix.
    #[error("`{found}` has bits beyond its prefix; write `{meant}`")]
    HostBits {
        /// As written.
        found: String,
        /// The network that contains it.
        meant: String,
    },
}

impl Net {
    /// Whether the network is IPv4.
    pub const fn is_v4(self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }

    /// Whether `address` lies in the network; never across families.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// The address, if the network has just one.
    pub fn single(self) -> Option<IpAddr> {
        (self.0.prefix_len() == self.0.max_prefix_len()).then(|| self.0.addr())
    }

    /// The fewest networks with the same addresses, sorted, IPv4 first.
    pub fn aggregate(nets: impl IntoIterator<Item = Net>) -> Vec<Net> {
        let all: Vec<IpNet> = nets.into_iter().map(|net| net.0).collect();
        let mut few: Vec<Net> = IpNet::aggregate(&all).into_iter().map(Net).collect();
        few.sort();
        few
    }
}

impl From<IpAddr> for Net {
    fn from(address: IpAddr) -> Net {
        Net(IpNet::from(address))
    }
}

impl FromStr for Net {
    type Err = NetError;
    fn from_str(text: &str) -> Result<Net, NetError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Net::from(address));
        }
        let net: IpNet = text.parse().map_err(|_| NetError::Form(text.to_owned()))?;
        if net == net.trunc() {
            Ok(Net(net))
        } else {
            let (found, meant) = (text.to_owned(), net.trunc().to_string());
            Err(NetError::HostBits { found, meant })
        }
    }
}

impl TryFrom<String> for Net {
    type Error = NetError;
    fn try_from(text: String) -> Result<Net, NetError> {
        text.parse()
    }
}

impl From<Net> for String {
    fn from(net: Net) -> String {
        net.to_string()
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
