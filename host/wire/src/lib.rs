//! Wire protocols: bytes to [`rerankd_core`] types and back.
//!
//! Pure functions. A protocol is one module that knows its JSON and nothing of another protocol, of
//! HTTP servers or of policies; the server makes a route of each entry of [`PROTOCOLS`]. Reading
//! order: [`native`], [`hits`], [`metarank`] (the protocols); [`search`] (the search proxy); [`status`] (the `Rerank-Status`
//! header); `decode`, `value`, `json` (reading), `engine` (search responses); `answer` (writing).
//!
//! A new protocol is one file with a `Protocol` in it, one line in [`PROTOCOLS`], and a folder of
//! recorded messages in `fixtures/`.

mod answer;
mod decode;
mod engine;
pub mod hits;
mod json;
pub mod metarank;
pub mod native;
pub mod search;
pub mod status;
mod value;

use rerankd_core::{Limits, OnFailure, PolicySelector, RerankError, RerankRequest, Reranked};

/// Every protocol that is served.
pub static PROTOCOLS: &[&dyn Protocol] = &[&native::Native, &hits::Hits, &metarank::Cross];

/// One shape of request and answer, and the paths where it is spoken.
pub trait Protocol: Sync {
    /// One word, used in metrics and as the folder's name in `fixtures/`.
    fn name(&self) -> &'static str;

    /// The paths, answered on `POST`, as axum patterns with one parameter: `/v1/rerank/{policy}`.
    fn paths(&self) -> &'static [&'static str];

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
    /// What stands in the path for its parameter, percent-decoded.
    pub target: &'a str,
    /// The whole body, decompressed.
    pub body: &'a [u8],
    /// What one request may use.
    pub limits: &'a Limits,
}

/// What a route's name may stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A policy.
    Policy(PolicySelector),
    /// A policy, or else a model whose raw pair score is wanted.
    PolicyOrModel(PolicySelector),
}

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
