//! Wire protocols: bytes to [`rerankd_core`] types and back.
//!
//! Pure functions. A protocol is one module that knows its JSON and nothing of another protocol, of
//! HTTP servers or of policies; the server makes its routes of [`routes`]. Reading order:
//!
//! - rerankd's own forms: [`native`], [`hits`];
//! - rerank APIs: [`superset`] (Cohere, Jina and all who look like them), [`voyage`],
//!   [`xinference`], [`infinity`], [`vllm`], [`tei`], [`nvidia`], [`mixedbread`], [`dashscope`],
//!   [`ollama`], [`bedrock`], [`metarank`];
//! - what rerank APIs share: `asked` (reading), `own` (rerankd's options), `cuts` (long texts), `lax`
//!   (types), `listing` (scores and order), `numbers`, `pairs` (protocols with a score for each pair),
//!   `list_body` (writing), [`models`] (who is there);
//! - [`search`]: the search proxy, and `engine`: search responses;
//! - what all share: [`status`] (the `Rerank-Status` header), `decode`, `value`, `json` (reading),
//!   `answer` (writing).
//!
//! A new protocol is one file with a `Protocol` in it, one line in [`PROTOCOLS`], and a folder of
//! recorded messages in `fixtures/`.

mod answer;
mod asked;
pub mod bedrock;
mod cuts;
pub mod dashscope;
mod decode;
mod engine;
pub mod hits;
pub mod infinity;
mod json;
mod lax;
mod list_body;
mod listing;
pub mod metarank;
pub mod mixedbread;
pub mod models;
pub mod native;
mod numbers;
pub mod nvidia;
pub mod ollama;
mod own;
mod pairs;
pub mod search;
pub mod status;
pub mod superset;
pub mod tei;
mod value;
pub mod vllm;
pub mod voyage;
pub mod xinference;

use std::borrow::Cow;

use rerankd_core::{Limits, OnFailure, PolicySelector, RerankError, RerankRequest, Reranked};

/// Every protocol that is served. Where a path is shared, the first that claims a body has it.
pub static PROTOCOLS: &[&dyn Protocol] = &[
    &native::Native,
    &hits::Hits,
    &metarank::Cross,
    &nvidia::Nvidia,
    &mixedbread::Mixedbread,
    &dashscope::DashScope,
    &tei::Rerank,
    &tei::Predict,
    &xinference::Xinference,
    &vllm::Rerank,
    &vllm::Score,
    &voyage::Voyage,
    &infinity::Infinity,
    &ollama::Ollama,
    &bedrock::Bedrock,
    &superset::Superset,
];

/// Paths where a client may have been pointed that speaks another protocol than the path's own: what is
/// in the body decides.
pub const SHARED_PATHS: &[&str] = &[
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/v1/reranking",
    "/reranking",
    "/v1/ranking",
    "/v1/retrieval/{vendor}/reranking",
    "/v1/retrieval/{vendor}/{model}/reranking",
    "/",
    "/invocations",
];

/// Every path with the protocols that are spoken there.
pub fn routes() -> Vec<Route> {
    let own = |protocol: &'static dyn Protocol| {
        protocol.paths().iter().map(move |path| (*path, protocol))
    };
    let routes = PROTOCOLS.iter().copied().flat_map(own);
    let routes = routes.map(|(path, home)| {
        let shared = SHARED_PATHS.contains(&path);
        let others = PROTOCOLS.iter().copied();
        Route {
            path,
            home,
            others: others
                .filter(|other| {
                    shared && other.speaks_where_shared() && other.name() != home.name()
                })
                .collect(),
        }
    });
    routes.collect()
}

/// One path of the data plane.
#[derive(Clone)]
pub struct Route {
    /// The path, as an axum pattern.
    pub path: &'static str,
    home: &'static dyn Protocol,
    /// Who else may be spoken there, in the order of [`PROTOCOLS`].
    others: Vec<&'static dyn Protocol>,
}

impl Route {
    /// The protocol that a body speaks.
    pub fn protocol(&self, body: &[u8]) -> &'static dyn Protocol {
        if self.others.is_empty() {
            return self.home;
        }
        let keys = Keys::of(body);
        let claimed = self.others.iter().find(|protocol| protocol.claims(&keys));
        claimed.copied().unwrap_or(self.home)
    }

    /// The protocol of bodies that no other claims, and of errors that come before there is a body.
    pub fn fallback(&self) -> &'static dyn Protocol {
        self.home
    }
}

/// The keys of a body, by which protocols that share a path are told apart. Of a body that is no
/// JSON object there are none.
pub struct Keys<'a>(Vec<Cow<'a, str>>);

impl<'a> Keys<'a> {
    fn of(body: &'a [u8]) -> Self {
        let members = json::parse(body).ok().into_iter();
        Self(
            members
                .flat_map(|body| body.members())
                .map(|(key, _)| key)
                .collect(),
        )
    }

    /// Whether the body has this key, even if it is null.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|own| own == key)
    }
}

/// One shape of request and answer, and the paths where it is spoken.
pub trait Protocol: Sync {
    /// One word, used in metrics and as the folder's name in `fixtures/`.
    fn name(&self) -> &'static str;

    /// Its own paths, answered on `POST`, as axum patterns: `/v1/rerank/{policy}`. No two protocols have
    /// the same; one may have none.
    fn paths(&self) -> &'static [&'static str];

    /// Whether it is spoken on [`SHARED_PATHS`], too, where it claims a body.
    fn speaks_where_shared(&self) -> bool {
        false
    }

    /// Whether a body on a path that is another's is of this protocol.
    fn claims(&self, _body: &Keys<'_>) -> bool {
        false
    }

    /// Whether `Content-Type` means nothing; else it must be JSON's, if it is there.
    fn ignores_content_type(&self) -> bool {
        false
    }

    /// What to answer when reranking fails and the request does not say.
    fn on_failure(&self) -> OnFailure;

    /// Reads a call. The headers of the request, its content type too, are the server's matter.
    ///
    /// # Errors
    /// `BadRequest` with the place of what is wrong, `TooLarge` for more documents than
    /// [`Limits::max_documents`].
    fn decode<'a>(&self, call: &Call<'a>) -> Result<Decoded<'a>, RerankError>;

    /// The answer for a failure of any kind, also of one that happened before or after `decode`.
    fn encode_error(&self, error: &RerankError, request_id: &str) -> Answer;
}

/// One call of a protocol's route.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The pattern of the path: one of [`Protocol::paths`], or of [`SHARED_PATHS`].
    pub path: &'a str,
    /// What stands in the path for its first parameter, percent-decoded; empty if it has none.
    pub target: &'a str,
    /// The whole body, decompressed.
    pub body: &'a [u8],
    /// What one request may use.
    pub limits: &'a Limits,
    /// Names the call, for answers that carry an id.
    pub request_id: &'a str,
    /// When it came, for answers that say so: seconds since 1970, UTC.
    pub unix_seconds: u64,
}

/// Who shall rerank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A policy.
    Policy(PolicySelector),
    /// A policy, or else a model whose raw pair score is wanted.
    PolicyOrModel(PolicySelector),
    /// What the body calls a model: a policy, or an alias of one. `None` is the default policy.
    Named(Option<String>),
    /// The same, for scores of pairs: each must not depend on the others.
    NamedForPairs(Option<String>),
}

impl Target {
    /// Who a path names: [`DEFAULT_POLICY`], or a policy.
    pub(crate) fn of_path(name: &str) -> Self {
        if name == DEFAULT_POLICY {
            Self::Named(None)
        } else {
            Self::Policy(PolicySelector::parse(name))
        }
    }
}

/// Stands in a path where a policy does, for the one that answers where nobody is named. No policy
/// can have this name.
pub const DEFAULT_POLICY: &str = "_default";

/// A decoded call: what to rerank, and how to turn the results into the answer.
pub struct Decoded<'a> {
    /// Who shall rerank.
    pub target: Target,
    /// One for each distinct query; most protocols have exactly one. None at all where there is
    /// nothing to do: then `reply` makes the answer from no results.
    pub requests: Vec<RerankRequest>,
    /// Makes the answer. It borrows from the call's body.
    pub reply: Box<dyn Reply + Send + 'a>,
}

/// The second half of a call.
pub trait Reply {
    /// Makes the answer from the results, one for each of [`Decoded::requests`], in their order.
    ///
    /// # Errors
    /// Where the protocol cannot say in an answer what became of a document; and `Internal` where
    /// the results do not fit the requests. The caller answers with [`Protocol::encode_error`].
    fn encode(self: Box<Self>, results: &[Reranked]) -> Result<Answer, RerankError>;
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: http::StatusCode,
    /// `Content-Type`, `Rerank-Status` where something was to be ranked, and on errors
    /// `Retry-After` where another try makes sense.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}
