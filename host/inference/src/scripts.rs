//! Scripts of letters: which one a character belongs to, which characters count when a text is weighed,
//! and which scripts a vocabulary holds words of.
//!
//! Only scripts that vocabularies of text models have words in are told apart. A letter of any other is
//! unread where the tokenizer has no token for it, and only there.

use std::collections::HashSet;

/// Pieces of several letters of one script that a vocabulary must have for the script to count as
/// read: with less, its words come letter by letter.
///
/// Counted: `all-minilm-l6-v2` has 27,537 of Latin and at most 8 of any other; multilingual-e5-small
/// has at least 621 (Katakana) of each that it was trained on; its cut for Portuguese and English has
/// 43,305 of Latin and 185 of Devanagari, whose words it spells.
const LEAST_PIECES: usize = 300;

/// Han characters that a vocabulary must have, alone or in pieces, for Han to count as read: each is a
/// word or a part of one. `all-minilm-l6-v2` has 244, multilingual-e5-small 7,693.
const LEAST_HAN: usize = 3_000;

macro_rules! scripts {
    ($($name:ident)+) => {
        /// A script, by its name in Unicode.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the names are Unicode's own")]
        pub enum Script { $($name),+ }

        impl Script {
            /// All that are told apart.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in Unicode and in a model's manifest.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }
        }
    };
}

scripts! {
    Latin Greek Cyrillic Armenian Hebrew Arabic Syriac Thaana Devanagari Bengali Gurmukhi Gujarati Oriya
    Tamil Telugu Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Georgian Hangul Ethiopic Cherokee
    Khmer Mongolian Hiragana Katakana Bopomofo Han Yi Tifinagh
}

use Script::*;

/// First and last code point of each run of one script's letters (Unicode 14, Scripts.txt; runs of one
/// script with no other's letters between them are one).
const RUNS: [(u32, u32, Script); 71] = [
    (0x0041, 0x02E4, Latin),
    (0x02EA, 0x02EB, Bopomofo),
    (0x0370, 0x03FF, Greek),
    (0x0400, 0x052F, Cyrillic),
    (0x0531, 0x058F, Armenian),
    (0x0591, 0x05F4, Hebrew),
    (0x0600, 0x06FF, Arabic),
    (0x0700, 0x074F, Syriac),
    (0x0750, 0x077F, Arabic),
    (0x0780, 0x07B1, Thaana),
    (0x0860, 0x086A, Syriac),
    (0x0870, 0x08FF, Arabic),
    (0x0900, 0x097F, Devanagari),
    (0x0980, 0x09FE, Bengali),
    (0x0A01, 0x0A76, Gurmukhi),
    (0x0A81, 0x0AFF, Gujarati),
    (0x0B01, 0x0B77, Oriya),
    (0x0B82, 0x0BFA, Tamil),
    (0x0C00, 0x0C7F, Telugu),
    (0x0C80, 0x0CF2, Kannada),
    (0x0D00, 0x0D7F, Malayalam),
    (0x0D81, 0x0DF4, Sinhala),
    (0x0E01, 0x0E5B, Thai),
    (0x0E81, 0x0EDF, Lao),
    (0x0F00, 0x0FDA, Tibetan),
    (0x1000, 0x109F, Myanmar),
    (0x10A0, 0x10FF, Georgian),
    (0x1100, 0x11FF, Hangul),
    (0x1200, 0x1399, Ethiopic),
    (0x13A0, 0x13FD, Cherokee),
    (0x1780, 0x17F9, Khmer),
    (0x1800, 0x18AA, Mongolian),
    (0x1C80, 0x1C88, Cyrillic),
    (0x1C90, 0x1CBF, Georgian),
    (0x1D00, 0x1D25, Latin),
    (0x1E00, 0x1EFF, Latin),
    (0x1F00, 0x1FFE, Greek),
    (0x2071, 0x209C, Latin),
    (0x2126, 0x2126, Greek),
    (0x212A, 0x2188, Latin),
    (0x2C60, 0x2C7F, Latin),
    (0x2D00, 0x2D2D, Georgian),
    (0x2D30, 0x2D7F, Tifinagh),
    (0x2D80, 0x2DDE, Ethiopic),
    (0x2DE0, 0x2DFF, Cyrillic),
    (0x2E80, 0x303B, Han),
    (0x3041, 0x309F, Hiragana),
    (0x30A1, 0x30FF, Katakana),
    (0x3105, 0x312F, Bopomofo),
    (0x3131, 0x318E, Hangul),
    (0x31A0, 0x31BF, Bopomofo),
    (0x31F0, 0x31FF, Katakana),
    (0x3400, 0x9FFF, Han),
    (0xA000, 0xA4C6, Yi),
    (0xA640, 0xA69F, Cyrillic),
    (0xA722, 0xA7FF, Latin),
    (0xA8E0, 0xA8FF, Devanagari),
    (0xA960, 0xA97C, Hangul),
    (0xAB01, 0xAB2E, Ethiopic),
    (0xAB30, 0xAB64, Latin),
    (0xAB70, 0xABBF, Cherokee),
    (0xAC00, 0xD7FB, Hangul),
    (0xF900, 0xFAD9, Han),
    (0xFB00, 0xFB06, Latin),
    (0xFB13, 0xFB17, Armenian),
    (0xFB1D, 0xFB4F, Hebrew),
    (0xFB50, 0xFEFC, Arabic),
    (0xFF21, 0xFF5A, Latin),
    (0xFF66, 0xFF9D, Katakana),
    (0xFFA0, 0xFFDC, Hangul),
    (0x20000, 0x3134A, Han),
];

impl Script {
    /// The script of a letter; `None` for what is no letter, or of no script that is told apart.
    pub fn of(letter: char) -> Option<Self> {
        let code = u32::from(letter);
        let after = RUNS.partition_point(|&(first, ..)| first <= code);
        let &(_, last, script) = RUNS.get(after.checked_sub(1)?)?;
        (code <= last && letter.is_alphabetic()).then_some(script)
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|script| script.name() == name)
    }
}

/// Whether a character counts when a text is weighed: letters, digits and pictures; no punctuation, no
/// space, no accent, nothing invisible.
pub fn is_visible(character: char) -> bool {
    character.is_alphanumeric()
        || matches!(u32::from(character),
            // From arrows to dingbats; enclosed letters; private use; emoji and other pictures.
            0x2190..=0x2BFF | 0x3200..=0x33FF | 0xE000..=0xF8FF | 0x1F000..=0x1FAFF)
}

/// Some scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scripts(u64);

impl Scripts {
    /// Whether it is one of them.
    pub fn contains(self, script: Script) -> bool {
        (self.0 >> (script as u8)) & 1 == 1
    }

    /// Their names, in the order of [`Script::ALL`].
    pub fn names(self) -> Vec<&'static str> {
        let own = Script::ALL.iter().filter(|&&script| self.contains(script));
        own.map(|script| script.name()).collect()
    }

    /// Those that a model reads whose vocabulary has these pieces, each as it stands in a text.
    pub fn of_vocabulary<'p>(pieces: impl Iterator<Item = std::borrow::Cow<'p, str>>) -> Self {
        let mut words = [0_usize; Script::ALL.len()];
        let mut han = HashSet::new();
        for piece in pieces {
            let mut letters = 0;
            let mut only = None;
            let mut is_mixed = false;
            for letter in piece.chars().filter(|c| c.is_alphabetic()) {
                let script = Script::of(letter);
                if script == Some(Han) {
                    han.insert(letter);
                }
                is_mixed |= letters > 0 && script != only;
                (letters, only) = (letters + 1, script);
            }
            if let (Some(script), true, false) = (only, letters > 1, is_mixed) {
                words[script as usize] += 1;
            }
        }
        let is_read = |script: &Script| match script {
            Han => han.len() >= LEAST_HAN,
            script => words[*script as usize] >= LEAST_PIECES,
        };
        Script::ALL.iter().copied().filter(is_read).collect()
    }
}

impl FromIterator<Script> for Scripts {
    fn from_iter<I: IntoIterator<Item = Script>>(scripts: I) -> Self {
        Self(
            scripts
                .into_iter()
                .fold(0, |all, script| all | (1 << (script as u8))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_have_their_script_and_nothing_else_has_one() {
        for (letters, script) in [
            ("azé ß ﬁ Ａ", Latin),
            ("αΩἀ", Greek),
            ("кЯѣ", Cyrillic),
            ("אב", Hebrew),
            ("عرﷺ", Arabic),
            ("हिन", Devanagari),
            ("ไทย", Thai),
            ("한ᄒ", Hangul),
            ("ひらっ", Hiragana),
            ("カターｶ", Katakana),
            ("运動々𠀀", Han),
        ] {
            for letter in letters.chars().filter(|c| !c.is_whitespace()) {
                assert_eq!(Script::of(letter), Some(script), "{letter}");
            }
        }
        for other in "1 9 ٣ ! 。 、 € × ÷ 🍕 \u{200b} \u{feff} \u{301} \u{fffd} 𝕳".chars()
        {
            assert_eq!(Script::of(other), None, "{other}");
        }
        assert!(RUNS.is_sorted_by(|a, b| a.1 < b.0), "runs ascend");
        assert!(Script::ALL.len() <= 64, "one bit each");
    }

    #[test]
    fn punctuation_spaces_and_what_is_invisible_do_not_count() {
        for visible in "aß1٣运ह🍕★㈱𝕳".chars() {
            assert!(is_visible(visible), "{visible}");
        }
        for not in
            " .,!?-_'\"()。、«»…\n\t\u{200b}\u{200d}\u{feff}\u{fe0f}\u{301}\u{fffd}\0".chars()
        {
            assert!(!is_visible(not), "{not:?}");
        }
    }

    #[test]
    fn a_vocabulary_of_words_reads_their_script() {
        let words = |first: u32, count: u32| {
            (0..count).map(move |n| {
                let letter = |n: u32| char::from_u32(first + n % 24).expect("a letter");
                format!("{}{}", letter(n), letter(n / 24)).into()
            })
        };
        let single = |first: u32, count: u32| {
            (0..count).map(move |n| {
                char::from_u32(first + n)
                    .expect("a letter")
                    .to_string()
                    .into()
            })
        };
        let of = |scripts: Scripts| scripts.names();
        let enough = LEAST_PIECES as u32;
        assert_eq!(of(Scripts::of_vocabulary(words(0x61, enough))), ["Latin"]);
        assert_eq!(
            of(Scripts::of_vocabulary(words(0x430, enough - 1))),
            [""; 0]
        );
        assert_eq!(of(Scripts::of_vocabulary(single(0xAC00, 5000))), [""; 0]);
        assert_eq!(of(Scripts::of_vocabulary(single(0x4E00, 3000))), ["Han"]);
        assert_eq!(of(Scripts::of_vocabulary(single(0x4E00, 2999))), [""; 0]);
    }
}
