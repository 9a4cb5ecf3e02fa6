//! Texts to token rows.
//!
//! Texts are cut, never refused: first at [`CHARACTERS_PER_TOKEN`] characters for each token of the
//! model's window, so that hostile text costs little, then at the window itself. In a pair only the
//! document is cut, unless the query alone fills more than half the window.
//!
//! A text that the model cannot read, or of which no token is left, has a row that is not run: its
//! attention mask is 0 ([`crate::reading`]).

use rerankd_core::TokenCount;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::cache::key::{Key, KeyMaker};
use crate::error::InferenceError;
use crate::manifest::Inputs;
use crate::reading::{Reader, Reading};
use crate::scripts::Scripts;
use crate::template::{Template, TokenRow};
use crate::tensor::{Tensor, TensorData};

/// Texts are cut at this many characters for each token of the window before they are tokenized.
/// English has 4 to 5 characters a token; no word piece of the usual vocabularies is longer than 20.
pub const CHARACTERS_PER_TOKEN: usize = 20;

/// Most tokens of one byte of text: three bytes can be normalized to 18 characters (U+FDFA) of two
/// bytes each, and a byte can be a token.
const TOKENS_PER_BYTE: usize = 12;

/// What a token of a row takes, bytes: its id and its segment.
const TOKEN_BYTES: usize = 2 * size_of::<u32>();

/// What a row takes beside its tokens, bytes: in the queue, in the encoding, in the lists of lengths
/// and of texts that were cut, and in the allocator.
const ROW_BYTES: usize = 320;

/// A model's tokenizer with its window.
pub struct ModelTokenizer {
    model: String,
    tokenizer: Tokenizer,
    single: Template,
    pair: Template,
    max_tokens: usize,
    reader: Reader,
    /// Makes keys of texts.
    keys: KeyMaker,
}

/// The token ids of one text, without special tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedText {
    ids: Vec<u32>,
    truncated: bool,
    reading: Reading,
    /// Tokens before anything was cut off behind the tokenizer.
    given: usize,
}

/// The rows of one tokenizer call, in the order of the texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoding {
    /// One row a text.
    pub rows: Vec<TokenRow>,
    /// How much of each text was read.
    pub readings: Vec<Reading>,
    /// How much of the query of a pair was read; `None` for texts alone.
    pub query_reading: Option<Reading>,
    /// Positions of the texts that were cut, ascending.
    pub truncated: Vec<u32>,
    /// Whether the query of a pair was cut.
    pub query_truncated: bool,
    /// How much there is of it.
    pub tokens: TokenCount,
    /// How many special tokens each row has.
    pub special_tokens: usize,
}

impl ModelTokenizer {
    /// Reads `tokenizer.json` bytes. `scripts` are those that the model reads; without them, those of
    /// which the vocabulary has words.
    ///
    /// # Errors
    /// [`InferenceError::Tokenizer`] with the problem.
    pub fn new(
        model: &str,
        json: &[u8],
        max_tokens: usize,
        scripts: Option<Scripts>,
    ) -> Result<Self, InferenceError> {
        let fail = |problem: String| InferenceError::Tokenizer {
            model: model.to_owned(),
            problem,
        };
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| fail(error.to_string()))?;
        // The file may ship with padding and truncation switched on; both are the host's.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| fail(error.to_string()))?;
        // A document that says `[SEP]` must not get a separator.
        tokenizer.set_encode_special_tokens(true);
        let single = Template::single(&tokenizer).map_err(fail)?;
        let pair = Template::pair(&tokenizer).map_err(fail)?;
        if pair.special_tokens() + 2 > max_tokens {
            return Err(fail(format!(
                "a window of {max_tokens} tokens has no room for a pair"
            )));
        }
        let reader = Reader::new(&tokenizer, scripts);
        Ok(Self {
            model: model.to_owned(),
            tokenizer,
            single,
            pair,
            max_tokens,
            keys: KeyMaker::new(&[
                "encodings 2",
                &hex::encode(Sha256::digest(json)),
                &max_tokens.to_string(),
                &reader.scripts().names().join(" "),
            ]),
            reader,
        })
    }

    /// The scripts that the model reads: text in letters of others is unread.
    pub fn scripts(&self) -> Scripts {
        self.reader.scripts()
    }

    /// The key of a text's encoding.
    pub(crate) fn key(&self, text: &str) -> Key {
        self.keys.key(text.as_bytes())
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The longest row, tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// One more than the highest token id of the vocabulary.
    pub fn vocabulary(&self) -> u64 {
        let vocabulary = self.tokenizer.get_vocab(true);
        vocabulary.values().max().map_or(0, |&id| u64::from(id) + 1)
    }

    /// Tokens that a text of this many bytes may have, at a guess, for admission: never more than
    /// the window.
    pub fn estimated_tokens(&self, bytes: usize) -> usize {
        (bytes / 4 + self.single.special_tokens()).min(self.max_tokens)
    }

    /// Tokenizes one text on its own, to be put into a row later. Costs about 40 µs for a title and
    /// at most a few ms for any text.
    ///
    /// # Errors
    /// [`InferenceError::Tokenizer`].
    pub fn encode_text(&self, text: &str) -> Result<EncodedText, InferenceError> {
        let limit = self.max_tokens * CHARACTERS_PER_TOKEN;
        let (text, cut) = match text.char_indices().nth(limit) {
            Some((end, _)) => (&text[..end], true),
            None => (text, false),
        };
        let fail = |error: tokenizers::Error| InferenceError::Tokenizer {
            model: self.model.clone(),
            problem: error.to_string(),
        };
        let in_place = || self.tokenizer.encode(text, false);
        // Where tokens stand in the text costs time, and counts only where a part of it may be unread.
        let mut is_placed = self.reader.suspects(text);
        let mut encoding = match is_placed {
            true => in_place(),
            false => self.tokenizer.encode_fast(text, false),
        }
        .map_err(fail)?;
        // What is kept is not larger than the window, in capacity either.
        let kept = encoding.len().min(self.max_tokens);
        if !is_placed && self.reader.has_strange(&encoding.get_ids()[..kept]) {
            encoding = in_place().map_err(fail)?;
            is_placed = true;
        }
        let ids = &encoding.get_ids()[..kept];
        let reading = match is_placed {
            _ if self.reader.is_nothing(ids) => Reading::NOTHING,
            true => self
                .reader
                .weigh(text, ids, &encoding.get_offsets()[..kept]),
            false => Reading::WHOLE,
        };
        Ok(EncodedText {
            ids: ids.to_vec(),
            truncated: cut || kept < encoding.len(),
            reading,
            given: encoding.len(),
        })
    }

    /// A query for [`assemble_pair`](Self::assemble_pair): cut to half the window.
    ///
    /// # Errors
    /// [`InferenceError::Tokenizer`].
    pub fn encode_query(&self, query: &str) -> Result<EncodedText, InferenceError> {
        Ok(self.as_query(&self.encode_text(query)?))
    }

    /// A text as the query of a pair: cut to half the window.
    pub(crate) fn as_query(&self, text: &EncodedText) -> EncodedText {
        let (ids, truncated) = text.cut_to(self.max_tokens / 2);
        EncodedText {
            ids: ids.to_vec(),
            truncated,
            reading: text.reading,
            given: text.given,
        }
    }

    /// How many special tokens a row has: of a pair, or of a text alone.
    pub(crate) fn special_tokens(&self, pair: bool) -> usize {
        let template = if pair { &self.pair } else { &self.single };
        template.special_tokens()
    }

    /// The row of a text alone, and whether the text was cut.
    pub fn assemble_single(&self, text: &EncodedText) -> (TokenRow, bool) {
        let (ids, truncated) = text.cut_to(self.max_tokens - self.single.special_tokens());
        (self.single.assemble(&[ids]), truncated)
    }

    /// The row of a pair, and whether the text was cut. `query` comes from
    /// [`encode_query`](Self::encode_query).
    pub fn assemble_pair(&self, query: &EncodedText, text: &EncodedText) -> (TokenRow, bool) {
        let room = self.max_tokens - self.pair.special_tokens();
        let (ids, truncated) = text.cut_to(room.saturating_sub(query.ids.len()));
        (self.pair.assemble(&[&query.ids, ids]), truncated)
    }
}

impl EncodedText {
    /// The first `tokens` ids, and whether a part of the text is left out then.
    fn cut_to(&self, tokens: usize) -> (&[u32], bool) {
        match self.ids.get(..tokens) {
            Some(head) => (head, self.truncated || tokens < self.ids.len()),
            None => (&self.ids, self.truncated),
        }
    }

    /// The token ids.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens of the whole text; at least, where it was cut before it was tokenized.
    pub(crate) fn given(&self) -> usize {
        self.given
    }

    /// Whether a part of the text was left out.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// How much of it was read.
    pub fn reading(&self) -> Reading {
        self.reading
    }
}

impl Encoding {
    /// Most bytes that the rows of these texts take, before they are tokenized; of pairs, if there is
    /// a query.
    pub fn most_bytes(tokenizer: &ModelTokenizer, query: Option<&str>, texts: &[String]) -> usize {
        let window = tokenizer.max_tokens();
        let most = |text: &str| text.len().saturating_mul(TOKENS_PER_BYTE).min(window);
        let beside = tokenizer.special_tokens(query.is_some()) + query.map_or(0, most);
        let rows = texts.iter().map(|text| {
            let tokens = (beside + most(text)).min(window);
            ROW_BYTES + tokens * TOKEN_BYTES
        });
        rows.sum()
    }

    /// Bytes that its rows take.
    pub fn size_bytes(&self) -> usize {
        let rows = self.rows.iter();
        rows.map(|row| ROW_BYTES + row.ids.len() * TOKEN_BYTES)
            .sum()
    }

    /// Tells which rows of texts alone are the query, ascending. What is compared with a query that nobody
    /// can read need not run, either. A row after the first may be a document that says the same.
    pub fn tell_query(&mut self, rows: &[u32]) {
        let Some(&first) = rows.first() else {
            return;
        };
        self.query_reading = self.readings.get(first as usize).copied();
        let longest = |of_query: bool| {
            let rows = (0_usize..).zip(&self.rows);
            let rows =
                rows.filter(|&(row, _)| (row == first as usize) == of_query && self.is_run(row));
            let tokens = rows.map(|(_, row)| row.ids.len().saturating_sub(self.special_tokens));
            tokens.max().unwrap_or(0) as u64
        };
        (self.tokens.longest_query, self.tokens.longest_document) =
            (Some(longest(true)), longest(false));
    }

    /// Tokens in each row.
    pub fn lengths(&self) -> Vec<u32> {
        self.rows
            .iter()
            .map(|row| u32::try_from(row.ids.len()).unwrap_or(u32::MAX))
            .collect()
    }

    /// Tokens of the longest row; at least one, since a tensor without elements is no input.
    fn columns(&self) -> usize {
        let lengths = self.rows.iter().map(|row| row.ids.len());
        lengths.max().unwrap_or(0).max(1)
    }

    /// Bytes of the tensors that [`into_tensors`](Self::into_tensors) makes.
    pub fn tensor_bytes(&self, inputs: &Inputs) -> usize {
        let columns = self.columns();
        self.rows.len() * columns * 8 * (2 + usize::from(inputs.type_ids.is_some()))
    }

    /// Whether a row is to be run: its text was read, and so was the query.
    pub fn is_run(&self, row: usize) -> bool {
        let text = self.readings.get(row).copied();
        [self.query_reading, text]
            .into_iter()
            .flatten()
            .all(Reading::is_run)
    }

    /// The model's inputs by name, each `I64` `[rows, longest row]`, padded with 0 where the mask
    /// is 0. All of the mask is 0 in a row that is not to be run.
    pub fn into_tensors(self, inputs: &Inputs) -> Vec<(String, Tensor)> {
        let columns = self.columns();
        let dense = |value: &dyn Fn(usize, &TokenRow, usize) -> i64| {
            let mut data = vec![0_i64; self.rows.len() * columns];
            let rows = self.rows.iter().zip(data.chunks_mut(columns));
            for (number, (row, cells)) in rows.enumerate() {
                for (position, cell) in cells.iter_mut().enumerate().take(row.ids.len()) {
                    *cell = value(number, row, position);
                }
            }
            Tensor::new(vec![self.rows.len(), columns], TensorData::I64(data))
                .expect("one cell a row and column")
        };
        let mut tensors = vec![
            (
                inputs.ids.clone(),
                dense(&|_, row, position| i64::from(row.ids[position])),
            ),
            (
                inputs.mask.clone(),
                dense(&|number, _, _| i64::from(self.is_run(number))),
            ),
        ];
        if let Some(name) = &inputs.type_ids {
            tensors.push((
                name.clone(),
                dense(&|_, row, position| i64::from(row.type_ids[position])),
            ));
        }
        tensors
    }
}
