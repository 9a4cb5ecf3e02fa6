//! How much of a text the model can read.

use std::cell::OnceCell;

use crate::bindings::rerank::policy::tokenizer::Encoding;
use crate::bindings::rerank::reading::reading::{self, TextReading, Verdict};

/// How much of a text the model can read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The share of the text's visible characters that the model cannot read, 0 to 1. 1 if the
    /// tokenizer leaves nothing of the text.
    pub unread: f32,
    /// Whether the text was run: not, if more than half of it is unread, or nothing is left of it.
    pub is_run: bool,
    /// Whether the tokenizer leaves nothing of the text.
    pub is_empty: bool,
}

impl Reading {
    fn of(text: TextReading) -> Self {
        Self {
            unread: text.unread,
            is_run: text.verdict == Verdict::Read,
            is_empty: text.verdict == Verdict::Empty,
        }
    }
}

/// The readings of a call's texts, asked for when they are wanted.
#[derive(Default)]
pub(crate) struct Readings {
    /// What the texts became; none where there were no texts.
    encoding: Option<Encoding>,
    texts: OnceCell<Vec<TextReading>>,
}

impl Readings {
    pub(crate) fn of(encoding: Encoding) -> Self {
        Self {
            encoding: Some(encoding),
            texts: OnceCell::new(),
        }
    }

    /// Of the text of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn row(&self, row: usize) -> Reading {
        let ask = || self.encoding.as_ref().map(reading::texts);
        let texts = self.texts.get_or_init(|| ask().unwrap_or_default());
        Reading::of(texts[row])
    }

    /// Of the query, if there is one among the texts or beside them.
    pub(crate) fn query(&self) -> Option<Reading> {
        reading::query(self.encoding.as_ref()?).map(Reading::of)
    }
}
