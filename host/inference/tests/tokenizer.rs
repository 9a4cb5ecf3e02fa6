//! Cutting and assembling, on the default model's own tokenizer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rerankd_inference::ModelTokenizer;
use rerankd_inference::reading::{MOST_UNREAD, Reading, Verdict};
use rerankd_inference::scripts::Script;
use rerankd_inference::tokenizer::CHARACTERS_PER_TOKEN;
use tokenizers::{Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

const WINDOW: usize = 64;

fn json() -> Vec<u8> {
    let models = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models");
    std::fs::read(models.join("all-minilm-l6-v2/tokenizer.json")).unwrap()
}

fn ours() -> ModelTokenizer {
    ModelTokenizer::new("all-minilm-l6-v2", &json(), WINDOW, None).unwrap()
}

/// The library's own way: encode everything, then truncate.
fn uncut(strategy: TruncationStrategy) -> Tokenizer {
    let mut tokenizer = Tokenizer::from_bytes(json()).unwrap();
    tokenizer.with_padding(None);
    tokenizer.set_encode_special_tokens(true);
    tokenizer
        .with_truncation(Some(TruncationParams {
            max_length: WINDOW,
            strategy,
            stride: 0,
            direction: TruncationDirection::Right,
        }))
        .unwrap();
    tokenizer
}

fn single(text: &str) -> (Vec<u32>, bool) {
    let tokenizer = ours();
    let (row, cut) = tokenizer.assemble_single(&tokenizer.encode_text(text).unwrap());
    (row.ids, cut)
}

/// Text as it comes: words of several scripts, punctuation, long words, whitespace.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[a-z]{1,12}",
        2 => "[A-Z][a-zéüß]{0,8}[.,!?]?",
        1 => "[0-9]{1,6}",
        1 => "[\\u{4e00}-\\u{4fff}]{1,6}",
        1 => "[a-z]{90,130}",
        1 => "[ \\t\\n]{1,40}",
        1 => "\\PC{1,6}",
        1 => Just("[SEP]".to_owned()),
    ];
    prop::collection::vec(piece, 0..400).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Cutting before tokenizing gives what cutting after it gives, or says that it cut.
    #[test]
    fn an_early_cut_changes_nothing_that_is_not_marked(text in text()) {
        let (ids, cut) = single(&text);
        let reference = uncut(TruncationStrategy::LongestFirst).encode(text.as_str(), true).unwrap();
        if text.chars().count() <= WINDOW * CHARACTERS_PER_TOKEN || ids.len() == WINDOW {
            prop_assert_eq!(&ids[..], reference.get_ids());
        } else {
            prop_assert!(cut, "a text that was cut early must be marked");
            // All but a last word that the cut went through is what the whole text begins with.
            let same = ids.iter().zip(reference.get_ids()).take_while(|(a, b)| a == b).count();
            prop_assert!(same + WINDOW / 4 >= ids.len().min(reference.get_ids().len()));
        }
        let overflowed = !reference.get_overflowing().is_empty();
        prop_assert!(cut || !overflowed);
    }

    /// A pair put together from two encodings is what the library makes of the pair.
    #[test]
    fn a_pair_is_assembled_with_the_models_own_template(query in "[a-z ]{1,60}", text in text()) {
        prop_assume!(!query.trim().is_empty());
        let tokenizer = ours();
        let encoded_query = tokenizer.encode_query(&query).unwrap();
        let (row, _) = tokenizer.assemble_pair(&encoded_query, &tokenizer.encode_text(&text).unwrap());
        if text.chars().count() <= WINDOW * CHARACTERS_PER_TOKEN && !encoded_query.truncated() {
            let reference = uncut(TruncationStrategy::OnlySecond)
                .encode((query.as_str(), text.as_str()), true)
                .unwrap();
            prop_assert_eq!(&row.ids[..], reference.get_ids());
            prop_assert_eq!(&row.type_ids[..], reference.get_type_ids());
        }
        prop_assert!(row.ids.len() <= WINDOW);
    }
}

#[test]
fn a_query_longer_than_half_the_window_is_cut_and_says_so() {
    let tokenizer = ours();
    let query = tokenizer.encode_query(&"shoe ".repeat(100)).unwrap();
    assert!(query.truncated());
    let (row, cut) = tokenizer.assemble_pair(&query, &tokenizer.encode_text("red shoes").unwrap());
    assert!(!cut, "the document fits into the other half");
    assert_eq!(row.ids.len(), WINDOW / 2 + 2 + 3);
}

#[test]
fn a_document_cannot_forge_a_separator() {
    let (forged, _) = single("red [SEP] shoes");
    let separator = *single("red").0.last().unwrap();
    assert_eq!(forged.iter().filter(|&&id| id == separator).count(), 1);
}

#[test]
fn hostile_text_costs_little() {
    const SIZE: usize = 10 << 20;
    let tokenizer = ours();
    for (name, text) in [
        ("spaces", " ".repeat(SIZE)),
        (
            "combining marks",
            "e".to_owned() + &"\u{301}".repeat(SIZE / 2),
        ),
        ("one word", "a".repeat(SIZE)),
        ("one long CJK run", "漢".repeat(SIZE / 3)),
        ("replacement characters", "\u{fffd}".repeat(SIZE / 3)),
        ("ligatures", "\u{fdfa}".repeat(SIZE / 3)),
        ("zero", "\0".repeat(SIZE)),
    ] {
        // The best of a few, so that a busy machine does not fail the test; the bound is 5 ms.
        let fastest = (0..5)
            .map(|_| {
                let started = Instant::now();
                assert!(tokenizer.encode_text(&text).unwrap().truncated(), "{name}");
                started.elapsed()
            })
            .min()
            .unwrap();
        assert!(
            fastest < Duration::from_millis(5),
            "{name} took {fastest:?}"
        );
    }
}

fn reading(text: &str) -> Reading {
    ours().encode_text(text).unwrap().reading()
}

#[test]
fn a_text_is_read_as_far_as_the_vocabulary_has_its_words() {
    assert_eq!(ours().scripts().names(), ["Latin"]);
    for text in [
        "running shoes",
        "Schöne Grüße, déjà vu",
        "... !!! (?)",
        "3 x 4 = 12 ½ €5",
        "C++",
        "{}",
    ] {
        assert_eq!(reading(text), Reading::WHOLE, "{text}");
    }
    for (text, unread) in [
        ("Nike 运动鞋", 3.0 / 7.0),
        ("🍕 place", 1.0 / 6.0),
        ("кот cats", 3.0 / 7.0),
    ] {
        let reading = reading(text);
        assert!(
            (reading.unread - unread).abs() < 1e-6,
            "{text}: {reading:?}"
        );
        assert_eq!(reading.verdict, Verdict::Read, "{text}");
    }
    // Of several scripts; letter by letter; pictures; a word that is none; unknown punctuation.
    let word = "x".repeat(101);
    for text in ["运动鞋 tv", "кроссовки", "🍕", "ひらがな", &word, "※※"] {
        let reading = reading(text);
        assert!(reading.unread > MOST_UNREAD, "{text}: {reading:?}");
        assert_eq!(reading.verdict, Verdict::Unread, "{text}");
    }
    for text in [
        "", " \n", "\u{200b}", "\u{feff}", "\u{fffd}", "\0", "\u{301}",
    ] {
        assert_eq!(reading(text), Reading::NOTHING, "{text:?}");
    }
}

#[test]
fn what_was_cut_off_does_not_count() {
    let english = "shoe ".repeat(WINDOW);
    let chinese = "鞋".repeat(WINDOW);
    assert_eq!(
        reading(&format!("{english}{chinese}")).verdict,
        Verdict::Read
    );
    assert_eq!(
        reading(&format!("{chinese} {english}")).verdict,
        Verdict::Unread
    );
}

#[test]
fn a_manifests_scripts_count_before_the_vocabularys() {
    let with = |script: Script| {
        let scripts = Some([script].into_iter().collect());
        ModelTokenizer::new("all-minilm-l6-v2", &json(), WINDOW, scripts).unwrap()
    };
    let verdict = |tokenizer: &ModelTokenizer, text: &str| {
        tokenizer.encode_text(text).unwrap().reading().verdict
    };
    let cyrillic = with(Script::Cyrillic);
    assert_eq!(verdict(&cyrillic, "кроссовки"), Verdict::Read);
    assert_eq!(verdict(&cyrillic, "shoes"), Verdict::Unread);
    assert_eq!(verdict(&cyrillic, "42"), Verdict::Read);
}

#[test]
fn bytes_stand_for_characters_that_a_vocabulary_does_not_have() {
    let tokenizer = |json: &str| ModelTokenizer::new("m", json.as_bytes(), WINDOW, None).unwrap();
    let words: Vec<String> = ('a'..='z')
        .flat_map(|a| ('a'..='z').map(move |b| format!("{a}{b}")))
        .collect();
    let letters: Vec<String> = ('a'..='z').map(|a| a.to_string()).collect();
    let vocabulary = |more: Vec<String>| {
        let pieces = more.into_iter().chain(letters.clone()).chain(words.clone());
        pieces
            .enumerate()
            .map(|(id, piece)| format!("{piece:?}: {id}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    // SentencePiece with byte fallback, and GPT-2's alphabet.
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let fallback = tokenizer(&format!(
        r#"{{"version": "1.0", "added_tokens": [], "model": {{"type": "BPE", "byte_fallback": true, "merges": [], "vocab": {{{}}}}}}}"#,
        vocabulary(bytes)
    ));
    let alphabet = ('\u{a1}'..='\u{ac}')
        .chain('\u{ae}'..='\u{143}')
        .map(String::from)
        .collect();
    let byte_level = tokenizer(&format!(
        r#"{{"version": "1.0", "added_tokens": [],
            "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}},
            "decoder": {{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}},
            "model": {{"type": "BPE", "merges": [], "vocab": {{{}}}}}}}"#,
        vocabulary(alphabet)
    ));
    for (name, tokenizer) in [("fallback", &fallback), ("byte level", &byte_level)] {
        let reading = |text: &str| tokenizer.encode_text(text).unwrap().reading();
        assert_eq!(tokenizer.scripts().names(), ["Latin"], "{name}");
        assert_eq!(reading("shoes"), Reading::WHOLE, "{name}");
        assert_eq!(reading("🍕🍕").verdict, Verdict::Unread, "{name}");
        assert!(
            (reading("shoes🍕").unread - 1.0 / 6.0).abs() < 1e-6,
            "{name}"
        );
        assert_eq!(reading("").verdict, Verdict::Empty, "{name}");
    }
}
