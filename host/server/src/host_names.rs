//! Under which names the planes may be called. A web page can point a name of its own at loopback (DNS
//! rebinding), and is then of the same origin as what listens there; the name in `Host` gives it away.
//!
//! Marks that browsers set would not do: a rebound page sends neither `Origin` nor `Sec-Fetch-Site` with a
//! GET over plain HTTP.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, Uri, Version, header};
use rerankd_core::{ErrorKind, RerankError};

/// Names that the operator allows beside a plane's own, in lower case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowed {
    /// With their ports.
    exact: Vec<String>,
    /// Given without a port: any will do.
    names: Vec<String>,
    /// Whether it was said that a name is missing.
    said: Arc<AtomicBool>,
}

impl Allowed {
    /// Each with or without a port.
    pub(crate) fn new(hosts: &[String]) -> Self {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase());
        let (exact, names) = hosts.partition(|host| without_port(host) != host);
        Self {
            exact,
            names,
            said: Arc::default(),
        }
    }

    /// Whether a `Host`, in lower case, is one of them.
    pub(crate) fn has(&self, host: &str) -> bool {
        self.exact.iter().any(|allowed| allowed == host)
            || self.names.iter().any(|name| name == without_port(host))
    }

    /// Says in the log that a plane refused a name, the first time: an operator who forgot one looks there.
    /// What the name was does not matter, and is a stranger's to choose.
    pub(crate) fn warn_once(&self, plane: &str, flag: &str) {
        if !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                plane,
                "a request was refused as its `Host` is not allowed; if it was meant for this server, give the name to {flag} (said once)"
            );
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.names.is_empty()
    }
}

/// `name` of `name:port`, `[address]` of `[address]:port`.
pub(crate) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            name
        }
        _ => host,
    }
}

/// What a plane for applications asks of `Host`.
#[derive(Debug, Clone)]
pub(crate) struct HostNames {
    plane: &'static str,
    flag: &'static str,
    /// Whether names count at all.
    checks: bool,
    allowed: Allowed,
}

impl HostNames {
    /// On loopback: its names, addresses as they are, and those that are allowed. Elsewhere: those as
    /// well, if there are any; any name, if there are none.
    pub(crate) fn new(
        plane: &'static str,
        flag: &'static str,
        listen: SocketAddr,
        allowed: &[String],
    ) -> Self {
        let allowed = Allowed::new(allowed);
        Self {
            plane,
            flag,
            checks: listen.ip().to_canonical().is_loopback() || !allowed.is_empty(),
            allowed,
        }
    }

    /// Whether a request came by a good name.
    ///
    /// # Errors
    /// `HostNotAllowed`; `BadRequest` where `Host` is there twice, or is not there in HTTP/1.1.
    pub(crate) fn check(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), RerankError> {
        let wrong = |problem: &str| Err(RerankError::new(ErrorKind::BadRequest, problem));
        let mut given = headers.get_all(header::HOST).iter();
        let host = match (given.next(), given.next()) {
            (Some(host), None) => host,
            (Some(_), Some(_)) => return wrong("`Host` is there more than once"),
            // HTTP/1.0 has none; browsers do not speak it.
            (None, _) if version < Version::HTTP_11 => return Ok(()),
            (None, _) => return wrong("`Host` is missing, which HTTP/1.1 asks for"),
        };
        if !self.checks {
            return Ok(());
        }
        // A target that is a whole address goes before `Host` (RFC 9112, section 3.2.2).
        let authority = uri.authority().map(|authority| authority.as_str());
        let host = authority.map_or(host.as_bytes(), str::as_bytes);
        let host = String::from_utf8_lossy(host).to_ascii_lowercase();
        if is_own(&host) || self.allowed.has(&host) {
            return Ok(());
        }
        self.allowed.warn_once(self.plane, self.flag);
        let shown: String = host.chars().take(80).collect();
        Err(RerankError::new(
            ErrorKind::HostNotAllowed,
            format!(
                "`Host: {shown}` is not allowed: {} answers to `localhost`, to addresses, and to names that {} gives it",
                self.plane, self.flag
            ),
        ))
    }
}

/// Whether no page of another site can have this for its own name: an address, or a name that is
/// loopback everywhere (RFC 6761, section 6.3).
fn is_own(host: &str) -> bool {
    let name = without_port(host);
    if let Some(address) = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
    {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost") || matches!(name.parse(), Ok(IpAddr::V4(_)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn names(listen: &str, allowed: &[&str]) -> HostNames {
        let listen = listen.parse().expect("it is an address");
        let allowed: Vec<String> = allowed.iter().map(|host| (*host).to_owned()).collect();
        HostNames::new("the data plane", "--allow-host", listen, &allowed)
    }

    fn ask(names: &HostNames, hosts: &[&str]) -> Option<ErrorKind> {
        let values = hosts.iter().map(|host| {
            let value = HeaderValue::from_bytes(host.as_bytes());
            (header::HOST, value.expect("it can stand in a header"))
        });
        let (path, headers) = (Uri::from_static("/"), values.collect());
        let checked = names.check(Version::HTTP_11, &path, &headers);
        checked.err().map(|error| error.kind)
    }

    #[test]
    fn loopback_answers_to_its_names_to_addresses_and_to_those_that_are_given() {
        for listen in ["127.0.0.1:9500", "[::1]:9500", "[::ffff:127.0.0.1]:9500"] {
            let names = names(listen, &["Search.Internal", "shop.test:8080"]);
            for good in [
                "localhost",
                "LOCALHOST:1",
                "localhost.:9500",
                "rerankd.localhost",
                "127.0.0.1",
                "127.9.9.9:9500",
                "[::1]:9500",
                "10.0.0.5",
                "0.0.0.0:9500",
                "[2001:db8::1]",
                "search.internal:1",
                "shop.test:8080",
            ] {
                assert_eq!(ask(&names, &[good]), None, "{listen} {good}");
            }
            for wrong in [
                "evil.example",
                "evil.example:9500",
                "localhost.evil.example",
                "127.0.0.1.evil.example",
                "evillocalhost",
                "127.0.0.1@evil.example",
                "shop.test",
                "x.search.internal",
                "2130706433",
                "0x7f.1",
                "::1",
                "[evil.example]",
                "",
                "\u{9b}31m",
            ] {
                let refused = Some(ErrorKind::HostNotAllowed);
                assert_eq!(ask(&names, &[wrong]), refused, "{listen} {wrong}");
            }
        }
    }

    #[test]
    fn elsewhere_names_count_only_where_some_are_given() {
        let open = names("0.0.0.0:9500", &[]);
        assert_eq!(ask(&open, &["rerank.shop.svc.cluster.local:9500"]), None);
        assert_eq!(ask(&open, &[""]), None);
        let closed = names("10.0.0.5:9500", &["rerank.shop"]);
        assert_eq!(ask(&closed, &["rerank.shop:9500"]), None);
        assert_eq!(ask(&closed, &["10.0.0.5:9500"]), None);
        let refused = Some(ErrorKind::HostNotAllowed);
        assert_eq!(ask(&closed, &["evil.example"]), refused);
        for names in [open, closed] {
            for hosts in [&[][..], &["rerank.shop", "rerank.shop"]] {
                assert_eq!(ask(&names, hosts), Some(ErrorKind::BadRequest));
            }
            let none = HeaderMap::new();
            let old = names.check(Version::HTTP_10, &Uri::from_static("/"), &none);
            assert_eq!(old, Ok(()));
        }
    }

    #[test]
    fn the_target_goes_before_the_header() {
        let names = names("127.0.0.1:9500", &[]);
        let target = Uri::from_static("http://evil.example/health");
        let headers = [(header::HOST, HeaderValue::from_static("localhost"))];
        let headers = headers.into_iter().collect();
        let checked = names.check(Version::HTTP_11, &target, &headers);
        let kind = checked.map_err(|error| error.kind);
        assert_eq!(kind, Err(ErrorKind::HostNotAllowed));
    }
}
