//! Token ids of texts, so that a row is put together without tokenizing.

use std::sync::Arc;

use super::{CacheUsage, Keepable, Store};
use crate::error::InferenceError;
use crate::tokenizer::{EncodedText, ModelTokenizer};

/// About a passage of 80 tokens.
const USUAL_BYTES: usize = 320;

/// Token ids by tokenizer, window and text.
pub struct EncodingCache(Store<EncodedText>);

impl Keepable for EncodedText {
    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(self.ids())
    }
}

impl EncodingCache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self(Store::new(max_bytes, USUAL_BYTES))
    }

    /// What is known of a text.
    pub(crate) fn recall(
        &self,
        tokenizer: &ModelTokenizer,
        text: &str,
    ) -> Option<Arc<EncodedText>> {
        self.0.entries.get(&tokenizer.key(text))
    }

    /// The text's encoding, made if it is not known; and whether it was.
    pub(crate) fn encode(
        &self,
        tokenizer: &ModelTokenizer,
        text: &str,
    ) -> Result<(Arc<EncodedText>, bool), InferenceError> {
        let key = tokenizer.key(text);
        if let Some(known) = self.0.entries.get(&key) {
            return Ok((known, true));
        }
        let encoded = Arc::new(tokenizer.encode_text(text)?);
        self.0.entries.insert(key, Arc::clone(&encoded));
        Ok((encoded, false))
    }

    pub(crate) fn count(&self, model: &str, hits: usize, misses: usize) {
        self.0.count(model, hits, misses);
    }

    /// How full it is, and what was asked of it.
    pub fn usage(&self) -> CacheUsage {
        self.0.usage()
    }
}
