//! The special tokens that a model puts round a text or a pair of texts.
//!
//! Taken once from the tokenizer's own post-processor by giving it marked tokens, so that a pair can
//! be put together from two encodings without running the post-processor for each.

use tokenizers::{Encoding, Token, Tokenizer};

/// One special token and its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Special {
    id: u32,
    type_id: u32,
}

/// Where texts go between a model's special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Special tokens before the first text, between the texts, …, after the last.
    gaps: Vec<Vec<Special>>,
    /// The segment of each text.
    type_ids: Vec<u32>,
}

/// Ids that no vocabulary has.
const MARKS: [u32; 2] = [u32::MAX, u32::MAX - 1];

impl Template {
    /// The template of one text.
    ///
    /// # Errors
    /// The problem, if the post-processor does not keep texts in order, whole, and once each.
    pub fn single(tokenizer: &Tokenizer) -> Result<Self, String> {
        let processed = tokenizer
            .post_process(marked(MARKS[0]), None, true)
            .map_err(|error| error.to_string())?;
        Self::read(&processed, &MARKS[..1])
    }

    /// The template of a pair.
    ///
    /// # Errors
    /// As [`single`](Self::single).
    pub fn pair(tokenizer: &Tokenizer) -> Result<Self, String> {
        let processed = tokenizer
            .post_process(marked(MARKS[0]), Some(marked(MARKS[1])), true)
            .map_err(|error| error.to_string())?;
        Self::read(&processed, &MARKS)
    }

    fn read(processed: &Encoding, marks: &[u32]) -> Result<Self, String> {
        let mut gaps = vec![Vec::new()];
        let mut type_ids = Vec::new();
        for (&id, &type_id) in processed.get_ids().iter().zip(processed.get_type_ids()) {
            if marks.get(type_ids.len()) == Some(&id) {
                type_ids.push(type_id);
                gaps.push(Vec::new());
            } else if marks.contains(&id) {
                return Err("its template repeats or reorders the texts".to_owned());
            } else if let Some(gap) = gaps.last_mut() {
                gap.push(Special { id, type_id });
            }
        }
        if type_ids.len() == marks.len() {
            Ok(Self { gaps, type_ids })
        } else {
            Err("its template leaves out a text".to_owned())
        }
    }

    /// How many special tokens a row has.
    pub fn special_tokens(&self) -> usize {
        self.gaps.iter().map(Vec::len).sum()
    }

    /// Puts the texts' token ids between the special tokens.
    pub fn assemble(&self, texts: &[&[u32]]) -> TokenRow {
        let tokens = self.special_tokens() + texts.iter().map(|ids| ids.len()).sum::<usize>();
        let mut row = TokenRow {
            ids: Vec::with_capacity(tokens),
            type_ids: Vec::with_capacity(tokens),
        };
        for (position, gap) in self.gaps.iter().enumerate() {
            for special in gap {
                row.ids.push(special.id);
                row.type_ids.push(special.type_id);
            }
            if let Some(ids) = texts.get(position) {
                row.ids.extend_from_slice(ids);
                row.type_ids.resize(row.ids.len(), self.type_ids[position]);
            }
        }
        row
    }
}

/// A row of tokens, special tokens included; no padding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenRow {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The segment of each token.
    pub type_ids: Vec<u32>,
}

fn marked(id: u32) -> Encoding {
    Encoding::from_tokens(vec![Token::new(id, String::new(), (0, 0))], 0)
}
