//! Whose connections are counted together, and whose are not counted at all.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses that are one client: an IPv4 address, or the network of 64 bits that a host of IPv6
/// has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Peer(u64);

/// The peer at an address; `None` on loopback, where all are one machine.
pub(super) fn peer(address: IpAddr) -> Option<Peer> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        // No network of IPv6 has these first 32 bits.
        IpAddr::V4(address) => Some(Peer(u64::from(u32::from(address)))),
        IpAddr::V6(address) => Some(Peer((u128::from(address) >> 64) as u64)),
    }
}

/// Peers that may have a whole plane: a load balancer, whose callers all come from its address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedPeers(Vec<IpNet>);

impl TrustedPeers {
    /// Reads addresses (`10.0.0.7`) and networks (`10.0.0.0/8`).
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let network = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address
                .or_else(|_| text.parse::<IpNet>())
                .map_err(|_| text.clone())
        };
        texts
            .iter()
            .map(network)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The same as texts.
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    pub(super) fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}
