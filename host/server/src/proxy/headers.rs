//! What of a message's head belongs to one connection alone, and which requests a reverse proxy must
//! not take.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use rerankd_core::{ErrorKind, RerankError};

/// Headers of one connection, beside those that `Connection` names (RFC 9110, section 7.6.1).
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Refuses what is no request to an origin server: tunnels, other protocols, requests to somebody
/// else.
///
/// An offer of HTTP/2 or of TLS on the same connection is no such thing: the clients of Java make it
/// on each request and do without. It is not passed on.
///
/// # Errors
/// `BadRequest`.
pub(super) fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), RerankError> {
    let problem = if method == Method::CONNECT {
        "`CONNECT` asks for a tunnel, and there is none: call the search engine's paths"
    } else if uri.scheme().is_some() || uri.authority().is_some() {
        "the request's target names a host: it must be a path, such as `/index/_search`"
    } else if !uri.path().starts_with('/') {
        "the request's target must be a path, such as `/index/_search`"
    } else if headers.get_all(header::UPGRADE).iter().any(is_no_offer) {
        "`Upgrade` asks for another protocol, and there is none but HTTP/1.1"
    } else {
        return Ok(());
    };
    Err(RerankError::new(ErrorKind::BadRequest, problem))
}

fn is_no_offer(upgrade: &HeaderValue) -> bool {
    let Ok(protocols) = upgrade.to_str() else {
        return true;
    };
    let is_offer = |protocol: &str| {
        protocol.eq_ignore_ascii_case("h2c")
            || protocol
                .get(..4)
                .is_some_and(|head| head.eq_ignore_ascii_case("tls/"))
    };
    !protocols.split(',').map(str::trim).all(is_offer)
}

/// Takes out what belongs to this connection alone, and what `Connection` says does.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The head of a request as the engine gets it: without what belongs to the client's connection, and
/// without framing and `Host`, which are made anew.
///
/// `Expect` is answered by this server, which asks for the body when the engine takes it.
pub(super) fn for_engine(mut headers: HeaderMap) -> HeaderMap {
    let wants_trailers = headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    strip_hop_by_hop(&mut headers);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers
}

/// The head of an answer as the client gets it.
pub(super) fn for_client(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter()
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_connection_names_stays_behind() {
        let mut head = headers(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("x-opaque-id", "a"),
        ]);
        strip_hop_by_hop(&mut head);
        assert_eq!(head, headers(&[("x-opaque-id", "a")]));
    }

    #[test]
    fn an_offer_is_let_go_and_another_protocol_is_refused() {
        let uri = Uri::from_static("/products/_search");
        let with = |upgrade| check(&Method::GET, &uri, &headers(&[("upgrade", upgrade)]));
        assert!(with("h2c").is_ok());
        assert!(with("TLS/1.2, h2c").is_ok());
        assert!(with("websocket").is_err());
        assert!(with("h2c, websocket").is_err());
        let other = Uri::from_static("http://elsewhere/_search");
        assert!(check(&Method::GET, &other, &HeaderMap::new()).is_err());
        assert!(check(&Method::OPTIONS, &Uri::from_static("*"), &HeaderMap::new()).is_err());
    }
}
