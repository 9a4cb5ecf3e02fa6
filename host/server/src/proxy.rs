//! The search proxy: a listener that answers for a search engine, and reranks its searches on the way.
//!
//! `Proxy::answer` sees every request. What is no search goes through untouched (`pass`). A search
//! is read and planned (`rerankd_wire::search`), the engine is asked for the whole window, a policy
//! ranks it, and the client gets its page of that (`single`, `multi`). Whatever goes wrong on our
//! side ends in the engine's own page; only the engine's own trouble is an error.
//!
//! Reading order: `exchange` (one search and the engine), `single`, `multi`, `templates`, `lookup` and
//! `mapping_cache` (what the engine says of indices), `ranking`, `cache` and `pages` (the policy), `pass`,
//! `upstream`, `nodes`, `body`, `headers`.

mod body;
mod cache;
mod exchange;
mod headers;
#[cfg(test)]
mod interleaving;
mod lookup;
mod lookup_auth;
mod mapping_cache;
mod multi;
mod nodes;
mod pages;
mod pass;
mod ranking;
mod single;
mod templates;
mod upstream;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use rerankd_core::{ErrorKind, RerankError};
use rerankd_wire::search::{self, Endpoint, IndexRule, Rules};

use self::cache::RankingCache;
use self::exchange::{Exchange, Notes};
use self::lookup::Lookups;
use self::pages::FirstPages;
use self::upstream::Upstream;
use crate::app::App;
use crate::config::ProxySettings;
use crate::data_plane::{REQUEST_ID, request_id};
use crate::host_names::HostNames;
use crate::rerank;

/// What a request is to the proxy, in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// No search.
    Passed,
    /// One search.
    Search,
    /// Several.
    MultiSearch,
}

impl Kind {
    /// The name used in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Search => "search",
            Self::MultiSearch => "msearch",
        }
    }
}

/// What answers on the proxy's listener.
pub struct Proxy {
    app: Arc<App>,
    settings: ProxySettings,
    rules: Arc<Rules>,
    names: HostNames,
    upstream: Arc<Upstream>,
    lookups: Arc<Lookups>,
    rankings: RankingCache,
    unranked: FirstPages<rerankd_core::FailReason>,
}

impl Proxy {
    /// Nothing is connected to the engine yet, which need not run.
    ///
    /// # Errors
    /// A rule names no policy, and there is no default one.
    pub fn new(app: &Arc<App>, settings: &ProxySettings) -> anyhow::Result<Arc<Self>> {
        let mut rules = settings.rules.clone();
        let default = || {
            let default = rerank::default_policy(app);
            default.map_err(|error| anyhow::anyhow!("--upstream: {error}"))
        };
        if rules.indices.is_empty() {
            rules.default_rule = Some(IndexRule::new("*", default()?));
        }
        for rule in &mut rules.indices {
            if rule.policies.is_empty() {
                rule.policies.push(default()?);
            }
        }
        let rules = Arc::new(rules);
        let upstream = Arc::new(Upstream::new(&settings.upstream));
        let auth = settings.upstream.lookup_auth.as_ref();
        let auth = auth.map(|file| lookup_auth::open(file)).transpose();
        let auth = auth.map_err(|problem| anyhow::anyhow!(problem))?;
        let is_on = settings.upstream.lookups;
        Ok(Arc::new(Self {
            lookups: Lookups::new(app, &upstream, &rules, is_on, auth),
            app: Arc::clone(app),
            settings: settings.clone(),
            rules,
            names: HostNames::new(
                "the search proxy",
                "--proxy-allow-host",
                settings.listen,
                &settings.allow_hosts,
            ),
            upstream,
            rankings: RankingCache::default(),
            unranked: FirstPages::default(),
        }))
    }

    /// The line that says where the proxy listens and what it stands before.
    pub fn greeting(&self, address: SocketAddr) -> String {
        let scheme = match self.settings.tls {
            Some(_) => "https",
            None => "http",
        };
        let upstream: Vec<String> = self
            .settings
            .upstream
            .addresses
            .iter()
            .map(|uri| uri.to_string().trim_end_matches('/').to_owned())
            .collect();
        format!(
            "search proxy on {scheme}://{address}, before {}",
            upstream.join(", ")
        )
    }

    /// An error of our own, whatever was asked for.
    pub(crate) fn refuse(&self, error: &RerankError, headers: &HeaderMap) -> Response<Body> {
        refusal(error, Kind::Passed, &request_id(headers))
    }

    /// Answers one request.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let id = request_id(request.headers());
        let endpoint = search::endpoint(request.method(), request.uri().path());
        let kind = match endpoint {
            Endpoint::Search { .. } | Endpoint::Template { .. } => Kind::Search,
            Endpoint::MultiSearch { .. } | Endpoint::MultiTemplate { .. } => Kind::MultiSearch,
            Endpoint::Other => Kind::Passed,
        };
        self.app.telemetry.proxied(kind);
        let answered = AssertUnwindSafe(self.route(endpoint, kind, request, &id))
            .catch_unwind()
            .await;
        let answered = answered.unwrap_or_else(|_| {
            Err(RerankError::new(
                ErrorKind::Internal,
                "the host panicked; its log has the place",
            ))
        });
        answered.unwrap_or_else(|error| {
            self.app.telemetry.refused(kind.name(), &error, &id);
            refusal(&error, kind, &id)
        })
    }

    async fn route(
        &self,
        endpoint: Endpoint,
        kind: Kind,
        request: Request<Incoming>,
        id: &str,
    ) -> Result<Response<Body>, RerankError> {
        let (head, body) = request.into_parts();
        headers::check(&head.method, &head.uri, &head.headers)?;
        self.names.check(head.version, &head.uri, &head.headers)?;
        let (is_template, index) = match endpoint {
            Endpoint::Search { index } | Endpoint::MultiSearch { index } => (false, index),
            Endpoint::Template { index } | Endpoint::MultiTemplate { index } => (true, index),
            Endpoint::Other => {
                let opened = search::pit_opening(&head.method, head.uri.path());
                let response = pass::through(self, head, body).await?;
                return match opened {
                    Some(indices) => self.lookups.opened(indices, response).await,
                    None => Ok(response),
                };
            }
        };
        let exchange = Exchange {
            is_template,
            proxy: self,
            kind,
            index,
            head,
            id,
            notes: Notes::default(),
        };
        exchange.answer(body).await
    }
}

/// An error of our own, in the engine's shape.
fn refusal(error: &RerankError, kind: Kind, id: &str) -> Response<Body> {
    let answer = search::encode_engine_error(error, id);
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if kind == Kind::Passed {
        response
            .headers_mut()
            .remove(&rerankd_wire::status::RERANK_STATUS);
    }
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID.clone(), value);
    }
    response
}
