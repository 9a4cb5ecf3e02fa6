//! What keeps others than its clients from the admin plane, before any route is called: names that
//! were bound to loopback by somebody else (DNS rebinding), web pages of other sites, and forms; then
//! the token, and what it is good for.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use super::error::{AdminError, wrong_content_type};
use super::tokens::{Identity, Right};
use crate::app::App;
use crate::host_names::Allowed;

/// JSON.
pub const JSON: &str = "application/json";
/// A component.
pub const WASM: &str = "application/wasm";
/// A component with what belongs to it.
pub const MULTIPART: &str = "multipart/form-data";

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Names under which the admin plane may be called.
#[derive(Debug)]
pub struct Hosts {
    /// Its own, as `Host` has them.
    exact: Vec<String>,
    allowed: Allowed,
    scheme: &'static str,
}

impl Hosts {
    /// Loopback's names and the address itself, with its port, and those that the operator allows,
    /// which may have a port.
    pub fn new(address: SocketAddr, tls: bool, allowed: &[String]) -> Self {
        let (scheme, default_port) = match tls {
            true => ("https", 443),
            false => ("http", 80),
        };
        let port = address.port();
        let mut own = vec!["127.0.0.1".to_owned(), "[::1]".into(), "localhost".into()];
        // No client calls `0.0.0.0` by that name, but web pages do, to get at loopback.
        if !address.ip().is_unspecified() {
            own.push(match address {
                SocketAddr::V4(address) => address.ip().to_string(),
                SocketAddr::V6(address) => format!("[{}]", address.ip()),
            });
        }
        let mut exact: Vec<String> = own.iter().map(|name| format!("{name}:{port}")).collect();
        if port == default_port {
            exact.extend(own);
        }
        Self {
            exact,
            allowed: Allowed::new(allowed),
            scheme,
        }
    }

    fn allow(&self, host: &str) -> bool {
        self.exact.iter().any(|allowed| allowed == host) || self.allowed.has(host)
    }
}

/// Whether a request comes from where it may come from, and brings what it may bring. On every route,
/// first of all.
pub(super) async fn check(
    State(hosts): State<Arc<Hosts>>,
    request: Request,
    next: Next,
) -> Response {
    let checked = check_host(&hosts, &request)
        .and_then(|host| check_site(&hosts, &host, request.headers()))
        .and_then(|()| match *request.method() {
            Method::PUT | Method::POST => {
                check_content_type(request.headers(), &[JSON, WASM, MULTIPART])
            }
            _ => Ok(()),
        });
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_host(hosts: &Hosts, request: &Request) -> Result<String, AdminError> {
    let refuse = |problem: &str| {
        Err(AdminError::new(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            format!("{problem}; the admin plane answers to loopback's names with its port, and to those of --admin-allow-host"),
        )
        .counted_as("host"))
    };
    if request.uri().authority().is_some() {
        return refuse("a request must name a path, not a whole address");
    }
    let mut given = request.headers().get_all(header::HOST).iter();
    let host = match (given.next(), given.next()) {
        (Some(host), None) => host,
        (None, _) => return refuse("`Host` is missing"),
        (Some(_), Some(_)) => return refuse("`Host` is there more than once"),
    };
    let Ok(host) = host.to_str().map(str::to_ascii_lowercase) else {
        return refuse("`Host` is no name");
    };
    if hosts.allow(&host) {
        return Ok(host);
    }
    hosts
        .allowed
        .warn_once("the admin plane", "--admin-allow-host");
    let shown: String = host.chars().take(80).collect();
    refuse(&format!("`Host: {shown}` is not allowed"))
}

fn check_site(hosts: &Hosts, host: &str, headers: &HeaderMap) -> Result<(), AdminError> {
    let refuse = |name: &str, value: &HeaderValue| {
        let value: String = value
            .to_str()
            .unwrap_or("no text")
            .chars()
            .take(80)
            .collect();
        Err(AdminError::new(
            StatusCode::FORBIDDEN,
            "cross_site",
            format!(
                "`{name}: {value}`: the admin plane does nothing for web pages of other origins"
            ),
        )
        .counted_as("cross-site"))
    };
    let own = format!("{}://{host}", hosts.scheme);
    for origin in headers.get_all(header::ORIGIN) {
        if !origin.as_bytes().eq_ignore_ascii_case(own.as_bytes()) {
            return refuse("Origin", origin);
        }
    }
    for site in headers.get_all(&SEC_FETCH_SITE) {
        // `none`: a person typed the address.
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return refuse("Sec-Fetch-Site", site);
        }
    }
    Ok(())
}

fn check_content_type(headers: &HeaderMap, takes: &[&str]) -> Result<(), AdminError> {
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let (first, second) = (given.next(), given.next());
    let media = first
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    match media {
        Some(media) if second.is_none() && takes.iter().any(|t| t.eq_ignore_ascii_case(media)) => {
            Ok(())
        }
        _ => Err(wrong_content_type(first, takes)),
    }
}

/// Whether a request carries a token that is good; puts the [`Identity`] among its extensions.
pub(super) async fn identify(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    match identity(&app, request.headers()) {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

fn identity(app: &App, headers: &HeaderMap) -> Result<Identity, AdminError> {
    let refuse = |code, message: &str, challenge| {
        AdminError::new(StatusCode::UNAUTHORIZED, code, message).with_header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        )
    };
    let missing = || {
        refuse(
            "token_missing",
            "a token is needed, as `Authorization: Bearer TOKEN`; the server made one, `admin-token` in its data folder",
            r#"Bearer realm="rerankd""#,
        )
        .counted_as("token-missing")
    };
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else {
        return Err(missing());
    };
    let presented = given.to_str().ok().and_then(|given| given.split_once(' '));
    let Some((_, token)) = presented.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
    else {
        return Err(missing());
    };
    app.tokens.identify(token.trim()).ok_or_else(|| {
        refuse(
            "token_unknown",
            "the token is not one of this server's, or was revoked",
            r#"Bearer realm="rerankd", error="invalid_token""#,
        )
        .counted_as("token-unknown")
    })
}

/// What a route asks of its callers.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    right: Right,
    everywhere: bool,
    takes: &'static [&'static str],
}

/// A right on the policy that the path names (`{name}`); where it names none, on some policy.
pub const fn needs(right: Right) -> Needs {
    Needs {
        right,
        everywhere: false,
        takes: &[],
    }
}

impl Needs {
    /// The right on all policies.
    pub const fn everywhere(self) -> Self {
        Self {
            everywhere: true,
            ..self
        }
    }

    /// A body of one of these types.
    pub const fn taking(self, takes: &'static [&'static str]) -> Self {
        Self { takes, ..self }
    }

    /// A route's methods (`get(..)`, `put(..)`), of which nobody calls one who has not what it needs.
    pub fn guard<S: Clone + Send + Sync + 'static>(
        self,
        methods: MethodRouter<S>,
    ) -> MethodRouter<S> {
        methods.route_layer(from_fn_with_state(self, admit))
    }

    fn check(self, identity: &Identity, policy: Option<&str>) -> Result<(), AdminError> {
        let right = self.right;
        match policy {
            _ if self.everywhere && !identity.may_everywhere(right) => {
                Err(identity.forbidden(right, "on all policies (`*`)"))
            }
            Some(policy) => identity.require(right, policy),
            None if !identity.may_somewhere(right) => {
                Err(identity.forbidden(right, "on any policy"))
            }
            None => Ok(()),
        }
    }
}

async fn admit(
    State(needs): State<Needs>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let parameters = match parameters {
        Ok(parameters) => parameters,
        Err(rejection) => {
            let message = format!("the path: {}", rejection.body_text());
            return AdminError::bad_request(message).into_response();
        }
    };
    let policy = parameters
        .iter()
        .find_map(|(name, value)| (name == "name").then_some(value));
    let identity = request
        .extensions()
        .get::<Identity>()
        .expect("`identify` is a layer of every route");
    let checked = needs
        .check(identity, policy)
        .and_then(|()| match needs.takes {
            [] => Ok(()),
            takes => check_content_type(request.headers(), takes),
        });
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::{get, put};
    use tower::ServiceExt;

    use super::super::tokens::tests::identity;
    use super::*;

    /// What a route says to a token for `shop-*` with the rights to read and to push.
    async fn status(method: Method, path: &str, content_type: &str) -> StatusCode {
        let of_a_policy = needs(Right::Push)
            .taking(&[WASM, MULTIPART])
            .guard(put(|| async {}))
            .merge(needs(Right::Read).guard(get(|| async {})))
            .merge(
                needs(Right::Activate)
                    .taking(&[JSON])
                    .guard(axum::routing::post(|| async {})),
            );
        let routes: Router = Router::new()
            .route("/policies/{name}", of_a_policy)
            .route("/policies", needs(Right::Read).guard(get(|| async {})))
            .route(
                "/all",
                needs(Right::Read).everywhere().guard(get(|| async {})),
            );
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, content_type)
            .extension(identity("shop-*", &[Right::Read, Right::Push]))
            .body(Body::empty())
            .expect("it is a request");
        let response = routes.oneshot(request).await.expect("a router never fails");
        response.status()
    }

    #[tokio::test]
    async fn a_route_is_called_by_those_alone_who_have_what_it_needs() {
        for (method, path, content_type, expected) in [
            (Method::GET, "/policies/shop-a", "", 200),
            (Method::GET, "/policies/shop%2Da", "", 200),
            (Method::GET, "/policies/books", "", 403),
            (Method::GET, "/policies/xshop-a", "", 403),
            (Method::GET, "/policies/%FF", "", 400),
            (Method::GET, "/policies", "", 200),
            (Method::GET, "/all", "", 403),
            (Method::PUT, "/policies/shop-a", WASM, 200),
            (
                Method::PUT,
                "/policies/shop-a",
                "multipart/form-data; boundary=x",
                200,
            ),
            (Method::PUT, "/policies/shop-a", JSON, 415),
            (Method::PUT, "/policies/books", JSON, 403),
            (Method::POST, "/policies/shop-a", JSON, 403),
            (Method::DELETE, "/policies/shop-a", "", 405),
        ] {
            let status = status(method.clone(), path, content_type).await;
            assert_eq!(status, expected, "{method} {path} {content_type}");
        }
    }
}
