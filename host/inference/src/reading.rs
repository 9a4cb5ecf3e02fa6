//! How much of a text a model can read.
//!
//! A part of a text is *unread* where it stands in a token that stands for the unknown (`[UNK]`, or the
//! bytes of a character that the vocabulary does not have), or in letters of a script that the model
//! does not read. What a model makes of such text says nothing of its meaning: texts of nothing else are
//! all alike to it. So a text that is mostly unread is not run ([`MOST_UNREAD`]), and neither is one of
//! which the tokenizer leaves nothing.

use std::borrow::Cow;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::{Model as _, Tokenizer};

use crate::scripts::{Script, Scripts, is_visible};

/// A text is not run when more than this share of its visible characters is unread. Punctuation,
/// spaces, accents and what is invisible are not visible ([`is_visible`]).
pub const MOST_UNREAD: f32 = 0.5;

/// What a tokenizer made of one text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Whether the text is run.
    pub verdict: Verdict,
    /// The share of the text's visible characters that is unread, 0 to 1; of a text without any, 1 if
    /// all its tokens stand for the unknown. 1 of a text without tokens.
    pub unread: f32,
}

/// Whether a text is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is.
    Read,
    /// It is not: [`MOST_UNREAD`].
    Unread,
    /// It is not: the tokenizer leaves no token of it.
    Empty,
}

impl Reading {
    /// Of a text that is read from its first character to its last.
    pub const WHOLE: Self = Self {
        verdict: Verdict::Read,
        unread: 0.0,
    };

    /// Of a text without tokens.
    pub const NOTHING: Self = Self {
        verdict: Verdict::Empty,
        unread: 1.0,
    };

    /// Of a text whose share `unread` is unread.
    fn of_share(unread: f32) -> Self {
        let verdict = match unread > MOST_UNREAD {
            true => Verdict::Unread,
            false => Verdict::Read,
        };
        Self { verdict, unread }
    }

    /// Whether the text is run.
    pub fn is_run(self) -> bool {
        self.verdict == Verdict::Read
    }
}

/// What a model's vocabulary tells of how it reads.
#[derive(Debug)]
pub(crate) struct Reader {
    scripts: Scripts,
    /// Tokens that stand for the unknown.
    strange: Ids,
    /// Tokens that stand for a space and nothing else.
    blank: Vec<u32>,
}

impl Reader {
    /// Of a tokenizer; `scripts` are those that the model reads, where its manifest says so.
    pub(crate) fn new(tokenizer: &Tokenizer, scripts: Option<Scripts>) -> Self {
        /// A character of Unicode's last private plane, which no vocabulary has.
        const IN_NO_VOCABULARY: &str = "\u{10FFFD}";
        let mut strange = Ids::default();
        let probe = tokenizer.get_model().tokenize(IN_NO_VOCABULARY);
        for token in probe.unwrap_or_default() {
            strange.insert(token.id);
        }
        let vocabulary = tokenizer.get_vocab(true);
        let is_byte_level = is_byte_level(tokenizer);
        let mut blank = Vec::new();
        let mut words = Vec::with_capacity(vocabulary.len());
        for (piece, &id) in &vocabulary {
            match text_of(piece, is_byte_level) {
                Piece::Text(text) if text.trim().is_empty() => blank.push(id),
                Piece::Text(text) => words.push(text),
                Piece::Bytes => strange.insert(id),
                Piece::Special => {}
            }
        }
        Self {
            scripts: scripts.unwrap_or_else(|| Scripts::of_vocabulary(words.into_iter())),
            strange,
            blank,
        }
    }

    /// The scripts that the model reads.
    pub(crate) fn scripts(&self) -> Scripts {
        self.scripts
    }

    /// Whether a text may be unread whatever its tokens are: a letter of it is of a script that the
    /// model does not read. Costs next to nothing for ASCII.
    pub(crate) fn suspects(&self, text: &str) -> bool {
        match text.is_ascii() && self.scripts.contains(Script::Latin) {
            true => false,
            false => text.chars().any(|letter| self.is_foreign(letter)),
        }
    }

    /// Whether it is a letter of a script that the model does not read.
    fn is_foreign(&self, letter: char) -> bool {
        Script::of(letter).is_some_and(|script| !self.scripts.contains(script))
    }

    /// Whether any of these tokens stands for the unknown.
    pub(crate) fn has_strange(&self, ids: &[u32]) -> bool {
        ids.iter().any(|&id| self.strange.contains(id))
    }

    /// Whether these tokens, which may be none, say nothing at all.
    pub(crate) fn is_nothing(&self, ids: &[u32]) -> bool {
        ids.iter().all(|id| self.blank.contains(id))
    }

    /// Weighs a text by its tokens with their places in it, in bytes. What lies behind the last of them
    /// was cut off and does not count.
    pub(crate) fn weigh(&self, text: &str, ids: &[u32], places: &[(usize, usize)]) -> Reading {
        let end = places.iter().map(|&(_, end)| end).max().unwrap_or(0);
        let mut unknown = vec![false; end];
        for (&id, &(start, end)) in ids.iter().zip(places) {
            if self.strange.contains(id) {
                // The bytes of one character may all stand at its beginning.
                let end = end.max(start + 1).min(unknown.len());
                unknown[start.min(end)..end].fill(true);
            }
        }
        let (mut visible, mut unread) = (0_u32, 0_u32);
        for (at, character) in text.char_indices().take_while(|&(at, _)| at < end) {
            if is_visible(character) {
                let bytes = at..(at + character.len_utf8()).min(end);
                let is_unknown = unknown[bytes].contains(&true);
                visible += 1;
                unread += u32::from(is_unknown || self.is_foreign(character));
            }
        }
        let spoken = |id: &&u32| !self.blank.contains(id);
        match visible {
            0 if ids
                .iter()
                .filter(spoken)
                .all(|&id| self.strange.contains(id)) =>
            {
                Reading::of_share(1.0)
            }
            0 => Reading::WHOLE,
            visible => Reading::of_share(unread as f32 / visible as f32),
        }
    }
}

/// A set of token ids.
#[derive(Debug, Default)]
struct Ids(Vec<u64>);

impl Ids {
    fn insert(&mut self, id: u32) {
        let word = id as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id % 64);
    }

    fn contains(&self, id: u32) -> bool {
        let word = self.0.get(id as usize / 64);
        word.is_some_and(|word| (word >> (id % 64)) & 1 == 1)
    }
}

/// What an entry of a vocabulary stands for.
enum Piece<'p> {
    /// A part of a text.
    Text(Cow<'p, str>),
    /// Bytes that are no whole character.
    Bytes,
    /// No part of any text: `[CLS]`, `<s>`, `[unused7]`.
    Special,
}

fn text_of(piece: &str, is_byte_level: bool) -> Piece<'_> {
    let is_enclosed =
        |open, close| piece.len() > 2 && piece.starts_with(open) && piece.ends_with(close);
    if let Some(hex) = piece
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        && u8::from_str_radix(hex, 16).is_ok()
    {
        return Piece::Bytes;
    }
    if is_enclosed('[', ']') || is_enclosed('<', '>') {
        return Piece::Special;
    }
    if is_byte_level {
        let Some(bytes) = piece.chars().map(byte_of).collect::<Option<Vec<u8>>>() else {
            // Added beside the vocabulary, as text.
            return Piece::Text(Cow::Borrowed(piece));
        };
        return match String::from_utf8(bytes) {
            Ok(text) => Piece::Text(Cow::Owned(text)),
            Err(_) => Piece::Bytes,
        };
    }
    let inner = piece.strip_prefix("##").filter(|inner| !inner.is_empty());
    let piece = inner.unwrap_or(piece);
    // SentencePiece's mark of a space.
    Piece::Text(match piece.contains('\u{2581}') {
        true => Cow::Owned(piece.replace('\u{2581}', " ")),
        false => Cow::Borrowed(piece),
    })
}

/// The byte for which a character stands in a byte-level vocabulary (GPT-2's table): printable ones for
/// themselves, the others, in their order, for those from U+0100 on.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    let byte = match code {
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// Whether its pieces are spelt in bytes.
fn is_byte_level(tokenizer: &Tokenizer) -> bool {
    match tokenizer.get_decoder() {
        Some(DecoderWrapper::ByteLevel(_)) => true,
        Some(DecoderWrapper::Sequence(steps)) => {
            let mut steps = steps.get_decoders().iter();
            steps.any(|step| matches!(step, DecoderWrapper::ByteLevel(_)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_what_they_stand_for() {
        let shown = |piece, is_byte_level| match text_of(piece, is_byte_level) {
            Piece::Text(text) => text.into_owned(),
            Piece::Bytes => "(bytes)".to_owned(),
            Piece::Special => "(special)".to_owned(),
        };
        for (piece, text) in [
            ("##ing", "ing"),
            ("##", "##"),
            ("\u{2581}Haus", " Haus"),
            ("\u{2581}", " "),
            ("<0xE8>", "(bytes)"),
            ("<0xZZ>", "(special)"),
            ("[unused7]", "(special)"),
            ("</s>", "(special)"),
            ("[", "["),
            ("<>", "<>"),
        ] {
            assert_eq!(shown(piece, false), text, "{piece}");
        }
        for (piece, text) in [
            ("\u{120}house", " house"),
            ("\u{c3}\u{bc}", "ü"),
            ("\u{c3}", "(bytes)"),
            ("\u{10a}", "\n"),
            ("\u{e8}\u{bf}\u{132}", "运"),
        ] {
            assert_eq!(shown(piece, true), text, "{piece}");
        }
    }

    #[test]
    fn bytes_have_one_character_each() {
        let mut bytes: Vec<u8> = ('\0'..='\u{143}').filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<u8>>());
    }
}
