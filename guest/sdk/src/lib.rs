//! The SDK for rerankd policies.
//!
//! A *policy* is a WebAssembly component that gives each document of a search result a score; the
//! host sorts by it. The contract is `wit/policy.wit`, and this crate is that contract in Rust, with
//! what most policies need on top: the text of a document ([`text_of`]), the models ([`BiEncoder`],
//! [`CrossEncoder`]), scores that can be mixed ([`min_max`], [`z_score`]) and parameters
//! ([`parameters`]).
//!
//! # A first policy
//!
//! A policy is a type that implements [`Policy`], and one line that exports it. This one puts short
//! titles first:
//!
//! ```no_run
//! use rerank_policy::{Error, Judgment, Policy, Request, text_of};
//!
//! struct ShortTitlesFirst;
//!
//! impl Policy for ShortTitlesFirst {
//!     const MANIFEST: &'static str = r#"{
//!         "manifest_version": 1,
//!         "name": "short-titles-first",
//!         "version": "0.1.0",
//!         "description": "Puts documents with short titles first.",
//!         "score_kind": "blend",
//!         "fields": ["title"]
//!     }"#;
//!
//!     fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
//!         let judge = |(index, document)| match text_of(document, &["title"]) {
//!             Some(title) => Judgment::scored(index, -(title.chars().count() as f64)),
//!             None => Judgment::unscored(index, "empty"),
//!         };
//!         Ok((0..).zip(&request.documents).map(judge).collect())
//!     }
//! }
//!
//! rerank_policy::export!(ShortTitlesFirst);
//! # fn main() {}
//! ```
//!
//! Three rules make a ranking valid: every document is judged exactly once, `index` is its position
//! in the request, and a document that cannot be scored is [`Judgment::unscored`], not a low score.
//!
//! # Parameters and a model
//!
//! Parameters arrive as JSON, already checked against the schema of the manifest. A struct with
//! `deny_unknown_fields` and `default` reads them and holds the defaults:
//!
//! ```no_run
//! use rerank_policy::{CrossEncoder, Error, Judgment, Policy, Request, parameters, sigmoid, text_of};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields, default)]
//! struct Parameters {
//!     fields: Vec<String>,
//! }
//!
//! impl Default for Parameters {
//!     fn default() -> Self {
//!         Self { fields: vec!["title".to_owned(), "text".to_owned()] }
//!     }
//! }
//!
//! struct Pairs;
//!
//! impl Policy for Pairs {
//!     const MANIFEST: &'static str = r#"{
//!         "manifest_version": 1,
//!         "name": "pairs",
//!         "version": "0.1.0",
//!         "description": "The probability that a document answers the query.",
//!         "score_kind": "probability",
//!         "fields": ["title", "text"],
//!         "models": [{ "name": "judge", "kind": "cross-encoder", "default": "tiny-cross-encoder" }],
//!         "parameters": {
//!             "type": "object",
//!             "properties": { "fields": { "type": "array", "items": { "type": "string" } } },
//!             "additionalProperties": false
//!         }
//!     }"#;
//!
//!     fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
//!         let parameters: Parameters = parameters(&request)?;
//!
//!         // Documents without text are answered at once; the rest goes to the model in one call.
//!         let mut judgments = Vec::with_capacity(request.documents.len());
//!         let mut texts = Vec::new();
//!         let mut indexes = Vec::new();
//!         for (index, document) in (0..).zip(&request.documents) {
//!             match text_of(document, &parameters.fields) {
//!                 Some(text) => {
//!                     texts.push(text);
//!                     indexes.push(index);
//!                 }
//!                 None => judgments.push(Judgment::unscored(index, "empty")),
//!             }
//!         }
//!
//!         let scores = CrossEncoder::open("judge")?.score(&request.query, &texts)?;
//!         for (row, index) in indexes.into_iter().enumerate() {
//!             judgments.push(match scores.logit(row) {
//!                 Some(logit) => Judgment::scored(index, sigmoid(logit)),
//!                 None => Judgment::unscored(index, "late"),
//!             });
//!         }
//!         Ok(judgments)
//!     }
//! }
//!
//! rerank_policy::export!(Pairs);
//! # fn main() {}
//! ```
//!
//! # Text that the model cannot read
//!
//! A model of English makes something of Chinese, too, and it means nothing. So the host runs no row of
//! a text that is mostly *unread*, or of which the tokenizer leaves nothing, and none at all where the
//! query is such a text. Such rows look as if they were late, and `unscored("late")` is a right answer:
//! the host reports the document as `unread` or `empty`. A policy that would rather do something else,
//! such as to score by the first stage alone, asks [`Embeddings::reading`] or [`PairScores::reading`];
//! a host older than these functions refuses a component that calls them.
//!
//! # What goes wrong, and who hears of it
//!
//! An [`Error`] or a panic ends the call as a policy fault and the search keeps the engine's order;
//! [`Error::InvalidRequest`] is answered as a bad request. The message, file and line of a panic
//! reach the host (`log.panicked`). [`log()`] writes lines for whoever may push the policy.
//!
//! # Testing
//!
//! Everything here that does not call the host runs natively, so `cargo test` covers it: call
//! [`Policy::rerank`] with a [`Request`] made by hand. Calls to models, tokenizers and the log panic
//! outside a component; keep the arithmetic in functions of its own.

mod document;
mod judgment;
mod models;
mod normalize;
mod panics;
mod parameters;
mod reading;
mod vector;

/// The contract as `wit-bindgen` generates it, for what the rest of this crate does not cover.
#[allow(
    missing_docs,
    reason = "generated; the documentation of the WIT files is carried over where there is any"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "../../wit/reading"],
        inline: "
            package rerankd:sdk;

            world policy {
                include rerank:policy/reranker@0.1.0;
                import rerank:reading/reading@0.1.0;
            }
        ",
        world: "rerankd:sdk/policy",
        pub_export_macro: true,
        default_bindings_module: "rerank_policy::bindings",
        additional_derives: [PartialEq],
        generate_all,
    });
}

/// Exports a type that implements [`Policy`] as the component's policy: `export!(MyPolicy);`, once.
pub use bindings::export;
pub use bindings::exports::rerank::policy::policy::{Error, Judgment, Request};
pub use bindings::rerank::policy::log::{Level, log};
pub use bindings::rerank::policy::types::{Document, FirstStage, NamedValue, Outcome, Value};

pub use document::{first_stage_value, text_of};
pub use models::{BiEncoder, CrossEncoder, Embeddings, PairScores, model_error};
pub use normalize::{min_max, z_score};
pub use parameters::parameters;
pub use reading::Reading;
pub use vector::{dot, sigmoid};

/// A reranking policy. Implement it for a type without data and [`export!`] that type.
pub trait Policy {
    /// The manifest, a JSON object; `wit/policy.wit` has its format at `describe`. Kept in a file of
    /// its own: `include_str!("../manifest.json")`.
    const MANIFEST: &'static str;

    /// Judges every document of the request exactly once, in any order.
    ///
    /// Called once on a fresh instance: nothing is remembered from one request to the next.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for what the caller did wrong and the schema could not rule out,
    /// [`Error::Model`] if a model or tokenizer failed, else [`Error::Internal`].
    fn rerank(request: Request) -> Result<Vec<Judgment>, Error>;
}

impl<P: Policy> bindings::exports::rerank::policy::policy::Guest for P {
    fn describe() -> String {
        panics::report_to_host();
        P::MANIFEST.to_owned()
    }

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        panics::report_to_host();
        <P as Policy>::rerank(request)
    }
}
