//! rerankd's own options in the body of a rerank API: under `rerankd`, which no vendor has.
//!
//! ```json
//! {"model": "semantic-blend", "query": "q", "documents": ["a"],
//!  "rerankd": {"parameters": {"weight": 0.5}, "signals": {"country": "FR"}, "min_score": 0.1}}
//! ```
//! Version 0.1 had the same keys at the top of the body. They are still read there, as no vendor has any
//! of them but `parameters`: that one is a vendor's where all that is in it is known of vendors (Pinecone,
//! DashScope, Hugging Face), or where `rerankd` is there as well.

use rerankd_core::{RerankError, RerankRequest};

use crate::decode::{Place, UnknownKeys, refuse_explanations, take_common};
use crate::json::{Json, Kind};

/// The key of all options.
pub(crate) const OURS: &str = "rerankd";

/// The options.
const OPTIONS: &[&str] = &[
    "parameters",
    "signals",
    "timeout_ms",
    "on_failure",
    "min_score",
    "key",
    "explain",
];

/// Positions in [`OPTIONS`].
const PARAMETERS: usize = 0;
const EXPLAIN: usize = 6;

/// What vendors have under `parameters`.
const OF_VENDORS: &[&str] = &[
    "truncate",
    "truncation",
    "max_chunks_per_doc",
    "max_tokens_per_doc",
    "overlap_tokens",
    "top_n",
    "top_k",
    "return_documents",
    "return_text",
    "instruct",
    "function_to_apply",
];

/// The options of one body, as they are met.
#[derive(Default)]
pub(crate) struct Options<'a> {
    ours: Option<Json<'a>>,
    /// Those at the top of the body, in the order of [`OPTIONS`].
    beside: [Option<Json<'a>>; OPTIONS.len()],
}

impl<'a> Options<'a> {
    /// Takes a member of the body that is not null; false where it is none of ours.
    pub(crate) fn take(&mut self, key: &str, value: Json<'a>) -> bool {
        if key == OURS {
            self.ours = Some(value);
            return true;
        }
        let position = OPTIONS.iter().position(|option| *option == key);
        if let Some(position) = position {
            self.beside[position] = Some(value);
        }
        position.is_some()
    }

    /// Puts the options into `request`, and gives the `parameters` of a vendor, if they are one's.
    /// `explains`: whether the form has a place for explanations.
    ///
    /// # Errors
    /// `BadRequest` with the place of what is wrong.
    pub(crate) fn finish(
        mut self,
        request: &mut RerankRequest,
        explains: bool,
    ) -> Result<Option<Json<'a>>, RerankError> {
        let foreign = self.beside[PARAMETERS].filter(|parameters| {
            self.ours.is_some()
                || parameters.kind() == Kind::Object
                    && parameters
                        .members()
                        .all(|(key, _)| OF_VENDORS.contains(&&*key))
        });
        if foreign.is_some() {
            self.beside[PARAMETERS] = None;
        }
        for (key, value) in OPTIONS.iter().zip(self.beside) {
            if let Some(value) = value {
                take_common(request, key, Place::Body.key(key), value)?;
            }
        }
        if let Some(ours) = self.ours {
            let place = Place::Body.key(OURS);
            place.expect(Kind::Object, ours)?;
            let mut unknown = UnknownKeys::default();
            for (key, value) in ours.members() {
                let inner = place.key(&key);
                let Some(position) = OPTIONS.iter().position(|option| *option == key) else {
                    unknown.push(&key);
                    continue;
                };
                if value.is_null() {
                    continue;
                }
                if self.beside[position].is_some() {
                    return Err(inner.error(format_args!(
                        "there twice: here, and as `{key}` at the top of the body; leave that one out"
                    )));
                }
                take_common(request, &key, inner, value)?;
            }
            unknown.finish(place, OPTIONS, "")?;
        }
        let (body, ours) = (Place::Body, Place::Body.key(OURS));
        let parent = match self.beside[EXPLAIN] {
            Some(_) => body,
            None => ours,
        };
        refuse_explanations(parent.key(OPTIONS[EXPLAIN]), request.explain && !explains)?;
        Ok(foreign)
    }
}
