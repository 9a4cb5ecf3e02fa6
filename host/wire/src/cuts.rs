//! What a caller says of texts that are longer than the model reads. Each vendor has a key for it, and
//! none of them is dropped.
//!
//! rerankd cuts a text at its end, to what the model reads. Whoever wants an error instead gets one
//! (`truncate: false` or `"NONE"`, `truncation: false`); whoever wants the end kept (`left`, `"START"`) or
//! less read than the model would, gets an error where that would make a difference.

use rerankd_core::{ErrorKind, RerankError, Reranked, TokenCount};

use crate::decode::Place;
use crate::json::{Json, Kind, quoted};
use crate::lax;

/// Keys that bound how many tokens are read, and of what.
const LIMITS: &[(&str, Bounded)] = &[
    // Cohere v2; Jina's and vLLM's words for the same.
    ("max_tokens_per_doc", Bounded::Document),
    ("max_tokens_per_query", Bounded::Query),
    ("max_doc_length", Bounded::Document),
    ("max_query_length", Bounded::Query),
    // vLLM.
    ("truncate_prompt_tokens", Bounded::Row),
];

/// Of what tokens are counted.
#[derive(Debug, Clone, Copy)]
enum Bounded {
    Query,
    Document,
    /// Query and document together, with the special tokens.
    Row,
}

/// What was said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cuts {
    /// Whether a text that does not fit is an error.
    whole_texts: bool,
    /// The key by which texts may be cut at their start alone.
    from_the_start: Option<&'static str>,
    /// Bounds by what they bound: the smallest, tokens, and its key.
    at_most: [Option<(u64, &'static str)>; 3],
}

impl Cuts {
    /// Takes the value of a key that is about cutting; false where the key is none.
    ///
    /// # Errors
    /// `BadRequest` at `place`.
    pub(crate) fn take(
        &mut self,
        key: &str,
        place: Place<'_>,
        value: Json<'_>,
    ) -> Result<bool, RerankError> {
        if let Some(&(key, bounded)) = LIMITS.iter().find(|(limit, _)| *limit == key) {
            self.limit(key, bounded, place, value)?;
            return Ok(true);
        }
        match key {
            // A boolean of text-embeddings-inference and Jina, a word of NVIDIA, Cohere and Pinecone.
            "truncate" => match (lax::try_boolean(value), word(value).as_deref()) {
                (Some(cut), _) => self.whole_texts = !cut,
                (None, Some("none")) => self.whole_texts = true,
                (None, Some("end" | "right")) => self.whole_texts = false,
                (None, Some("start" | "left")) => self.from_the_start = Some("truncate"),
                _ => {
                    let wanted = "`true`, `false`, `END`, `START` or `NONE`";
                    return Err(unknown(place, value, wanted));
                }
            },
            "truncation" => self.whole_texts = !lax::boolean(place, value)?,
            "truncation_direction" => {
                self.from_the_start = left(place, value)?.then_some("truncation_direction");
            }
            "truncation_side" => {
                self.from_the_start = left(place, value)?.then_some("truncation_side");
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes what an object has of such keys.
    ///
    /// # Errors
    /// `BadRequest` with the place in it; also where it is no object.
    pub(crate) fn take_all(
        &mut self,
        place: Place<'_>,
        object: Json<'_>,
    ) -> Result<(), RerankError> {
        place.expect(Kind::Object, object)?;
        for (key, value) in object.members().filter(|(_, value)| !value.is_null()) {
            self.take(&key, place.key(&key), value)?;
        }
        Ok(())
    }

    /// vLLM's -1 is what the model reads.
    fn limit(
        &mut self,
        key: &'static str,
        bounded: Bounded,
        place: Place<'_>,
        value: Json<'_>,
    ) -> Result<(), RerankError> {
        const WANTED: &str = "how many tokens are read, an integer of at least 1, or -1 for as many as the model reads";
        match lax::integer(place, value, WANTED)? {
            -1 => {}
            count @ 1.. => {
                let count = count.unsigned_abs();
                let at_most = &mut self.at_most[bounded as usize];
                if at_most.is_none_or(|(most, _)| count < most) {
                    *at_most = Some((count, key));
                }
            }
            _ => return Err(place.expected(WANTED, value)),
        }
        Ok(())
    }

    /// Makes sure that texts were cut as the caller wants it.
    ///
    /// # Errors
    /// `TooLong` with the key, in the words of text-embeddings-inference where a text had to be whole:
    /// clients know them.
    pub(crate) fn check(&self, results: &[Reranked]) -> Result<(), RerankError> {
        let too_long = |problem: String| Err(RerankError::new(ErrorKind::TooLong, problem));
        let tokens = || results.iter().map(|result| result.tokens);
        let cut = tokens().find_map(|tokens| Some((tokens.longest_cut?, tokens.window)));
        if let Some((given, window)) = cut {
            if self.whole_texts {
                return too_long(format!(
                    "Input validation error: `inputs` must have less than {window} tokens. Given: {given}"
                ));
            }
            if let Some(key) = self.from_the_start {
                return too_long(format!(
                    "a text is longer than the {window} tokens that the model reads, and `{key}` asks to keep its end: texts can be cut at their end only (`right`)"
                ));
            }
        }
        for bounded in [Bounded::Query, Bounded::Document, Bounded::Row] {
            let Some((most, key)) = self.at_most[bounded as usize] else {
                continue;
            };
            let longest = tokens().map(|tokens| bounded.longest(tokens)).max();
            let (longest, what) = longest.unwrap_or((0, ""));
            if longest > most {
                return too_long(format!(
                    "`{key}` is {most}, and {what} was read with {longest} tokens: texts are cut to what the model reads and no shorter; send shorter texts, or leave `{key}` out"
                ));
            }
        }
        Ok(())
    }
}

impl Bounded {
    /// Tokens of the longest that was read, and what it is.
    fn longest(self, tokens: TokenCount) -> (u64, &'static str) {
        let row = (
            tokens.longest,
            "a text (query, document and special tokens together)",
        );
        match self {
            Self::Query => tokens
                .longest_query
                // It may be anywhere in a row.
                .map_or(row, |query| (query, "a query")),
            Self::Document => (tokens.longest_document, "a document"),
            Self::Row => row,
        }
    }
}

/// A word in lower case.
fn word(value: Json<'_>) -> Option<String> {
    Some(value.string()?.to_ascii_lowercase())
}

/// Whether texts shall lose their start.
fn left(place: Place<'_>, value: Json<'_>) -> Result<bool, RerankError> {
    match word(value).as_deref() {
        Some("right") => Ok(false),
        Some("left") => Ok(true),
        _ => Err(unknown(place, value, "`left` or `right`")),
    }
}

fn unknown(place: Place<'_>, value: Json<'_>, wanted: &str) -> RerankError {
    match value.string() {
        Some(other) => place.error(format_args!("expected {wanted}, got {}", quoted(&other))),
        None => place.expected(wanted, value),
    }
}
