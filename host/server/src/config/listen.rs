//! Where a plane listens, as it is written: an address and a port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and a port; `localhost` is 127.0.0.1. Other names are not looked up: what a server listens on
/// must not depend on who answers for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Listen(SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let Ok(port) = port.parse::<u16>() else {
            return Err(format!(
                "`{text}` must be an address and a port (0 to 65535), such as 127.0.0.1:9500"
            ));
        };
        match host {
            "localhost" => Ok(Self((Ipv4Addr::LOCALHOST, port).into())),
            "" => Err(format!(
                "`{text}` names no address: 127.0.0.1:{port} is for this machine alone, 0.0.0.0:{port} for all that reach it"
            )),
            _ if host.parse::<IpAddr>().is_ok_and(|host| host.is_ipv6()) => {
                Err(format!("`{text}` must be written as [{host}]:{port}"))
            }
            _ => Err(format!(
                "`{text}` must begin with an IP address, such as 127.0.0.1:{port}; of names only `localhost` is taken"
            )),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.0.to_string()
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl From<Listen> for SocketAddr {
    fn from(listen: Listen) -> Self {
        listen.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_says_what_would_be_one() {
        for (text, address) in [
            ("127.0.0.1:9500", "127.0.0.1:9500"),
            ("[::1]:0", "[::1]:0"),
            ("localhost:9500", "127.0.0.1:9500"),
        ] {
            let listen: Listen = text.parse().expect("it is one");
            assert_eq!(String::from(listen), address);
        }
        for (text, says) in [
            (":9500", "127.0.0.1:9500 is for this machine alone"),
            ("9500", "127.0.0.1:9500 is for this machine alone"),
            ("::1:9500", "must be written as [::1]:9500"),
            ("search.internal:9500", "of names only `localhost` is taken"),
            ("127.0.0.1", "must be an address and a port"),
            ("localhost:99999", "must be an address and a port"),
            ("", "must be an address and a port"),
        ] {
            let refused = text.parse::<Listen>().expect_err("it is none");
            assert!(refused.contains(says), "{refused}");
        }
    }
}
