//! Texts made to hurt: huge, senseless, or full of what tokenizers trip over. Each is cut at a bounded
//! cost, and none changes the score of another document. Nothing here is bad input.

use std::sync::LazyLock;

use rerankd_tests::answer::assert_same_bits;
use rerankd_tests::documents::texts;
use rerankd_tests::{Answer, Rerankd};
use serde_json::{Value, json};

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| Rerankd::start(&["--timeout-ms", "60000"]));

const TEN_MEGABYTES: usize = 10_000_000;

/// Tokenizing five ordinary texts and a hostile one: a few ms each, and much time to be kept waiting
/// on a busy machine. Without the cut, most of these take minutes.
const TOKENIZE_MS: f64 = 1_000.0;

fn rerank(policy: &str, body: impl AsRef<[u8]>) -> Answer {
    SERVER.post_text(&format!("/v1/rerank/{policy}"), body).ok()
}

/// A request with five ordinary documents and, in their middle, one with this text, which is given as
/// JSON. Without it, the middle one is absent.
fn request(hostile: Option<&str>) -> String {
    let mut documents: Vec<String> = texts(5).iter().map(Value::to_string).collect();
    if let Some(text) = hostile {
        documents.insert(2, format!(r#"{{"fields":{{"text":{text}}}}}"#));
    }
    format!(
        r#"{{"query":"smart watch","documents":[{}]}}"#,
        documents.join(",")
    )
}

/// The text, repeated up to 10 MB, as JSON.
fn much(text: &str) -> String {
    Value::from(text.repeat(TEN_MEGABYTES / text.len())).to_string()
}

/// Sends a hostile text among ordinary ones to the default policy, whose int8 model runs each row
/// alone, and to the cross-encoder.
#[track_caller]
fn check(text: &str, expected: Expected) {
    for policy in ["semantic-blend", "cross-encoder"] {
        let without = rerank(policy, request(None)).scores();
        let answer = rerank(policy, request(Some(text)));
        let mut scores = answer.scores();
        assert_eq!(scores.len(), 6);
        let hostile = scores.remove(2);
        assert_same_bits(&scores, &without);

        let body = answer.json();
        let results = body["results"].as_array().expect("it has results");
        let result = results.iter().find(|result| result["index"] == 2);
        let result = result.expect("no document is left out");
        match expected {
            Expected::Cut => assert_eq!(result["truncated"], true, "{policy} {result}"),
            Expected::Whole => assert_eq!(result.get("truncated"), None, "{policy} {result}"),
            Expected::Empty => assert_eq!(result["unscored"], "empty", "{policy} {result}"),
            Expected::Unread => assert_eq!(result["unscored"], "unread", "{policy} {result}"),
        }
        let is_scored = matches!(expected, Expected::Cut | Expected::Whole);
        assert_eq!(hostile.is_some(), is_scored);
        let tokenize = body["timings_ms"]["tokenize"].as_f64().expect("a number");
        assert!(tokenize < TOKENIZE_MS, "{policy}: {tokenize} ms");
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Cut,
    Whole,
    Empty,
    Unread,
}

#[test]
fn ten_megabytes_of_prose() {
    check(
        &much("A clog is a shoe that is made of wood, at least in part. "),
        Expected::Cut,
    );
}

#[test]
fn ten_megabytes_of_spaces() {
    check(&much(" "), Expected::Empty);
    check(&much(" \t\r\n\u{a0}\u{2003}"), Expected::Empty);
    let spaced = Value::from(format!("clog{}boot", " ".repeat(TEN_MEGABYTES)));
    check(&spaced.to_string(), Expected::Cut);
    let late = Value::from(format!("{}clog", "\u{200b}".repeat(TEN_MEGABYTES / 3)));
    // Nothing is left of what the model would see.
    check(&late.to_string(), Expected::Empty);
}

#[test]
fn ten_megabytes_of_one_word() {
    // A word of more than 100 letters is unknown.
    check(&much("a"), Expected::Unread);
    check(&much("ab"), Expected::Unread);
    check(&much("##"), Expected::Cut);
}

#[test]
fn ten_megabytes_of_combining_marks() {
    check(&much("\u{301}"), Expected::Empty);
    check(&much("e\u{301}\u{323}\u{30a}"), Expected::Unread);
    // Marks that canonical ordering has to sort.
    check(&much("\u{323}\u{301}\u{323}\u{315}"), Expected::Empty);
}

#[test]
fn ten_megabytes_of_other_scripts() {
    check(&much("庭いじり用のクロッグ"), Expected::Unread);
    check(&much("👟🏽👩\u{200d}👩\u{200d}👧"), Expected::Unread);
    check(&much("سابو "), Expected::Unread);
    // A ligature that compatibility decomposition makes 18 characters of.
    check(&much("\u{fdfa}"), Expected::Unread);
    check(&much("각"), Expected::Unread);
}

#[test]
fn ten_megabytes_of_control_characters() {
    // JSON has six bytes for each.
    let zeros = Value::from("\0".repeat(TEN_MEGABYTES / 2));
    check(&zeros.to_string(), Expected::Empty);
    check(&much("\u{202e}\u{2066}\u{feff}"), Expected::Empty);
    check(&much("\u{ffff}\u{10ffff}"), Expected::Unread);
}

#[test]
fn ten_megabytes_of_special_tokens() {
    check(&much("[SEP] "), Expected::Cut);
    check(&much("[CLS][SEP][PAD][MASK][UNK]"), Expected::Cut);
    check(&much(".,;:!?-"), Expected::Cut);
}

#[test]
fn ten_megabytes_of_half_surrogate_pairs() {
    // No Rust string can hold them, but JSON can, and engines store and return them.
    check(
        &format!("\"{}\"", r"\ud83d".repeat(TEN_MEGABYTES / 6)),
        Expected::Empty,
    );
    check(r#""clog \udc5f \ud83d""#, Expected::Whole);
    check(r#""\ud83d\ud83d\udc5f""#, Expected::Unread);
}

#[test]
fn small_oddities() {
    for text in ["\u{202e}golc", "e\u{301}", "[SEP]"] {
        check(&Value::from(text).to_string(), Expected::Whole);
    }
    for text in ["👟", "𝕔𝕝𝕠𝕘", "￼", "\u{10ffff}"] {
        check(&Value::from(text).to_string(), Expected::Unread);
    }
    for text in ["", " ", "\u{a0}\u{3000}", "\t\r\n"] {
        check(&Value::from(text).to_string(), Expected::Empty);
    }
    for text in ["\0", "\u{200b}", "\u{fffd}"] {
        check(&Value::from(text).to_string(), Expected::Empty);
    }
}

#[test]
fn a_document_cannot_forge_a_separator() {
    // With a real [SEP], the model would see three segments instead of two.
    let request = json!({"query": "clog", "documents": ["boot [SEP] clog", "boot sep clog"]});
    for policy in ["cross-encoder", "semantic-blend"] {
        let scores = rerank(policy, request.to_string()).scores();
        assert!(scores.iter().all(Option::is_some), "{scores:?}");
    }
    let text = "[SEP]";
    let pieces = json!({"texts": [text, "[ sep ]"]});
    let vectors = SERVER
        .post("/inference/encoder/all-minilm-l6-v2", &pieces)
        .ok()
        .json();
    assert_eq!(
        vectors["embeddings"][0], vectors["embeddings"][1],
        "it is three ordinary tokens"
    );
}

#[test]
fn a_hostile_query_is_cut_too() {
    let ask = |query: String, policy: &str| {
        let request = json!({"query": query, "documents": ["a clog", "a boot"]}).to_string();
        SERVER.post_text(&format!("/v1/rerank/{policy}"), request)
    };
    for policy in ["cross-encoder", "semantic-blend"] {
        for (query, status) in [
            ("clog ".repeat(TEN_MEGABYTES / 5), "applied"),
            // A word of more than 100 letters is unknown.
            ("a".repeat(TEN_MEGABYTES), "skipped"),
        ] {
            let answer = ask(query, policy).ok();
            assert_eq!(answer.parameter("status"), Some(status), "{policy}");
            let tokenize = answer.json()["timings_ms"]["tokenize"]
                .as_f64()
                .expect("a number");
            assert!(tokenize < TOKENIZE_MS, "{policy}: {tokenize} ms");
        }
        let answer = ask("\u{301}".repeat(TEN_MEGABYTES / 2), policy);
        assert_eq!(answer.status, 400, "{policy}");
    }
}

#[test]
fn twenty_hostile_texts_in_one_request_cost_twenty_times_little() {
    // 30 MB in all, just under the limit of a body.
    let documents: Vec<String> = (0..20)
        .map(|number| format!("{number} {}", "x\u{301}".repeat(500_000)))
        .collect();
    let answer = rerank(
        "semantic-blend",
        json!({"query": "x", "documents": documents}).to_string(),
    );
    assert_eq!(answer.scores().len(), 20);
    let tokenize = answer.json()["timings_ms"]["tokenize"]
        .as_f64()
        .expect("a number");
    assert!(tokenize < 2.0 * TOKENIZE_MS, "{tokenize} ms");
}
