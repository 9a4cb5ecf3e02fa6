//! Every kind of bad input is a 4xx that says where, what was wrong and what would be right; none is
//! a 500, and the server goes on. `bad_bodies.rs` has what is wrong before there is any JSON.

use std::sync::LazyLock;

use rerankd_tests::{Answer, Rerankd};
use serde_json::json;

static SERVER: LazyLock<Rerankd> =
    LazyLock::new(|| Rerankd::start(&["--max-documents", "50", "--timeout-ms", "60000"]));

const NATIVE: &str = "/v1/rerank/semantic-blend";
const HITS: &str = "/v1/rerank/semantic-blend/hits";
const CROSS: &str = "/inference/cross/tiny-cross-encoder";
const ENCODER: &str = "/inference/encoder/all-minilm-l6-v2";

/// An answer is the error that is expected, and the server is none the worse for it.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, message: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let text = answer.error_message();
    assert!(text.contains(message), "expected `{message}` in: {text}");
    assert!(text.len() < 1000, "{} bytes of message", text.len());
    assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
    let good = json!({"query": "clog", "documents": ["a clog"]});
    let next = SERVER.post(NATIVE, &good).ok();
    assert_eq!(next.parameter("status"), Some("applied"));
}

#[track_caller]
fn check(path: &str, body: impl AsRef<[u8]>, status: u16, message: &str) {
    assert_refused(&SERVER.post_text(path, body), status, message);
}

/// A bad request of the native form; `at` is the place that the error names.
#[track_caller]
fn check_native(body: &str, at: &str, message: &str) {
    let answer = SERVER.post_text(NATIVE, body);
    assert_refused(&answer, 400, message);
    let place = answer.json()["error"]["at"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_eq!(place, at, "{body}");
}

/// Bad requests of the native form: on one line the body, on the next the place and a part of the
/// message.
#[track_caller]
fn check_table(table: &str) {
    let lines: Vec<&str> = table
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert!(lines.len().is_multiple_of(2) && !lines.is_empty());
    for case in lines.chunks(2) {
        let (at, message) = case[1].split_once(": ").expect("a place and a message");
        check_native(case[0], at, message);
    }
}

/// `{"query":"q","documents":["d"],` and more members.
fn with(members: &str) -> String {
    format!(r#"{{"query":"q","documents":["d"],{members}}}"#)
}

#[test]
fn what_is_no_json_is_refused_everywhere() {
    for path in [NATIVE, HITS, CROSS, ENCODER] {
        let check = |body: &[u8], message: &str| check(path, body, 400, message);
        check(b"", "the body is empty; expected a JSON object");
        check(b" \n", "the body is empty");
        check(
            b"{",
            "the body is not JSON: EOF while parsing an object at line 1 column 1",
        );
        check(
            b"query=clog",
            "the body is not JSON: expected value at line 1 column 1",
        );
        check(b"{} {}", "trailing characters at line 1 column 4");
        check(br#"{"query": NaN}"#, "the body is not JSON");
        check(b"[]", "the body: expected an object, got an array");
        check(b"null", "the body: expected an object, got null");
        check(b"\"text\"", "the body: expected an object, got a string");
        check(
            b"{\"query\": \"caf\xe9\"}",
            "the body is not UTF-8: byte 14 starts no character",
        );
        check(
            b"\xff\xfe{\0}\0",
            "the body is UTF-16; expected JSON in UTF-8",
        );
        check("\u{feff}{".as_bytes(), "the body is not JSON");
        check("\u{feff}\u{feff}{}".as_bytes(), "the body is not JSON");
    }
}

#[test]
fn json_of_any_depth_is_refused_and_breaks_nothing() {
    let open = "[".repeat(10_000);
    let arrays = format!("{open}{}", "]".repeat(10_000));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    for path in [NATIVE, HITS, CROSS, ENCODER] {
        check(
            path,
            &open,
            400,
            "EOF while parsing a list at line 1 column 10000",
        );
        check(
            path,
            &arrays,
            400,
            "the body: expected an object, got an array",
        );
        let is_strict = path == NATIVE || path == HITS;
        check(
            path,
            &objects,
            400,
            if is_strict {
                "unknown key `a`"
            } else {
                "missing"
            },
        );
    }
    for deep in [&arrays, &objects] {
        let fields = format!(r#"{{"query":"q","documents":[{{"fields":{{"f":{deep}}}}}]}}"#);
        check_native(
            &fields,
            "documents[0].fields.f",
            "nested deeper than 100 levels",
        );
        let signals = with(&format!(r#""signals":{{"s":{deep}}}"#));
        check_native(&signals, "signals.s", "nested deeper than 100 levels");
        let parameters = with(&format!(r#""parameters":{{"weight":{deep}}}"#));
        check_native(&parameters, "parameters", "nested deeper than 100 levels");
        check_native(
            &with(&format!(r#""key":{deep}"#)),
            "key",
            "expected a string",
        );
        // In a hit's source it is no mistake of the caller: the engine stored it.
        let hit = format!(r#"{{"_id":"a","_score":1.0,"_source":{{"text":"a","deep":{deep}}}}}"#);
        let page = format!(r#"{{"query":"q","response":{{"hits":{{"hits":[{hit}]}}}}}}"#);
        assert!(
            SERVER
                .post_text(HITS, page)
                .ok()
                .text()
                .contains(deep.as_str())
        );
    }
    let page = format!(r#"{{"query":"q","response":{{"hits":{arrays}}}}}"#);
    check(HITS, page, 400, "`response.hits`: expected an object");
}

#[test]
fn wrong_types_are_named_with_their_place() {
    check_table(
        r#"
        {"query":["q"],"documents":["d"]}
            query: expected a string, got an array
        {"query":7,"documents":["d"]}
            query: expected a string, got `7`
        {"query":"q","documents":"d"}
            documents: expected an array, got a string
        {"query":"q","documents":{"text":"d"}}
            documents: expected an array, got an object
        {"query":"q","documents":["d",7]}
            documents[1]: expected a string or an object with `fields`, got `7`
        {"query":"q","documents":[null]}
            documents[0]: expected a string or an object with `fields`, got null
        {"query":"q","documents":[["d"]]}
            documents[0]: expected a string or an object with `fields`, got an array
        {"query":"q","documents":[{"id":true}]}
            documents[0].id: expected a string, got `true`
        {"query":"q","documents":[{"score":"9.1"}]}
            documents[0].score: expected a number, got a string
        {"query":"q","documents":[{"fields":["d"]}]}
            documents[0].fields: expected an object, got an array
        {"query":"q","documents":["d"],"top_n":0}
            top_n: expected an integer of at least 1, got `0`
        {"query":"q","documents":["d"],"top_n":-3}
            top_n: expected an integer of at least 1, got `-3`
        {"query":"q","documents":["d"],"top_n":1.5}
            top_n: expected an integer of at least 1, got `1.5`
        {"query":"q","documents":["d"],"top_n":"10"}
            top_n: expected an integer of at least 1, got a string
        {"query":"q","documents":["d"],"min_score":"high"}
            min_score: expected a number, got a string
        {"query":"q","documents":["d"],"explain":"yes"}
            explain: expected `true` or `false`, got a string
        {"query":"q","documents":["d"],"ordered":1}
            ordered: expected `true` or `false`, got `1`
        {"query":"q","documents":["d"],"timeout_ms":0}
            timeout_ms: expected an integer of at least 1, got `0`
        {"query":"q","documents":["d"],"timeout_ms":-1}
            timeout_ms: expected an integer of at least 1, got `-1`
        {"query":"q","documents":["d"],"timeout_ms":1e3}
            timeout_ms: expected an integer of at least 1, got `1e3`
        {"query":"q","documents":["d"],"on_failure":"firststage"}
            on_failure: expected `first-stage` or `error`, got `firststage`
        {"query":"q","documents":["d"],"on_failure":false}
            on_failure: expected `first-stage` or `error`, got `false`
        {"query":"q","documents":["d"],"key":17}
            key: expected a string, got `17`
        {"query":"q","documents":["d"],"signals":["FR"]}
            signals: expected an object, got an array
        {"query":"q","documents":["d"],"parameters":"weight=1"}
            parameters: expected an object, got a string
        {"query":"q","documents":["d"],"fields":"text"}
            fields: expected an array, got a string
        {"query":"q","documents":["d"],"fields":[]}
            fields: empty; leave it out to use the policy's own fields
        {"query":"q","documents":["d"],"fields":["text",1]}
            fields[1]: expected a string, got `1`
        {"query":"q","documents":["d"],"fields":["text","text"]}
            fields[1]: `text` is named twice
        "#,
    );
}

#[test]
fn unknown_keys_are_named_all_at_once_with_what_was_meant() {
    let body = r#"{"quary":"q","documents":["d"],"topN":3,"extra":null}"#;
    let message = "unknown keys `quary` (did you mean `query`?), `topN` (did you mean `top_n`?), \
                   `extra`; the known ones are `query`";
    check_native(body, "", message);
    let body = r#"{"query":"q","documents":["d",{"text":"t"}]}"#;
    let message = "unknown key `text`; the known ones are `id`, `score`, `fields`; what a policy \
                   shall see of the document goes under `fields`";
    check_native(body, "documents[1]", message);
    let many: Vec<String> = (0..500).map(|number| format!(r#""k{number}":1"#)).collect();
    check_native(&with(&many.join(",")), "", "and 490 more");
    check_native(
        &with(&format!(r#""{}":1"#, "x".repeat(100_000))),
        "",
        "unknown key `xxxxx",
    );
    let body = r#"{"query":"q","response":{"hits":{"hits":[]}},"documents":[]}"#;
    check(HITS, body, 400, "unknown key `documents`");
}

#[test]
fn a_query_and_documents_must_be_there() {
    check_table(
        r#"
        {"documents":["d"]}
            query: missing; expected the text that was searched for
        {"query":null,"documents":["d"]}
            query: missing; expected the text that was searched for
        {"query":"","documents":["d"]}
            query: empty; expected the text that was searched for
        {"query":" \t\n\u00a0","documents":["d"]}
            query: empty; expected the text that was searched for
        {"query":"q"}
            documents: missing; expected an array of documents
        {"query":"q","documents":null}
            documents: missing; expected an array of documents
        {"query":"q","documents":[]}
            documents: empty; expected at least one document
        "#,
    );
    let no_query = r#"{"query":"","response":{"hits":{"hits":[]}}}"#;
    check(HITS, no_query, 400, "`query`: empty");
    check(
        HITS,
        r#"{"query":"q"}"#,
        400,
        "`response`: missing; expected the engine's answer",
    );
    check(CROSS, "{}", 400, "`input`: missing; expected an array");
    check(
        CROSS,
        r#"{"input":[{"text":"t"}]}"#,
        400,
        "`input[0].query`: missing",
    );
    check(
        CROSS,
        r#"{"input":[{"query":"","text":"t"}]}"#,
        400,
        "`input[0].query`: empty",
    );
    let number = r#"{"input":[{"query":"q","text":7}]}"#;
    check(
        CROSS,
        number,
        400,
        "`input[0].text`: expected a string, got `7`",
    );
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    check_table(
        r#"
        {"query":"q","documents":[{"score":1e999}]}
            documents[0].score: `1e999` is too large for a 64-bit number
        {"query":"q","documents":[{"score":-1e999}]}
            documents[0].score: `-1e999` is too large for a 64-bit number
        {"query":"q","documents":[{"fields":{"price":1e999}}]}
            documents[0].fields.price: `1e999` is too large for a 64-bit number
        {"query":"q","documents":[{"fields":{"p":[1,1e999]}}]}
            documents[0].fields.p: `1e999` is too large for a 64-bit number
        {"query":"q","documents":[{"fields":{"p":{"q":-1e400}}}]}
            documents[0].fields.p: `-1e400` is too large for a 64-bit number
        {"query":"q","documents":["d"],"min_score":1e999}
            min_score: `1e999` is too large for a 64-bit number
        {"query":"q","documents":["d"],"signals":{"n":1e999}}
            signals.n: `1e999` is too large for a 64-bit number
        {"query":"q","documents":["d"],"parameters":{"weight":1e999}}
            parameters: `1e999` is too large for a 64-bit number
        "#,
    );
    let digits = "9".repeat(400);
    let body = format!(r#"{{"query":"q","documents":[{{"score":{digits}}}]}}"#);
    check_native(
        &body,
        "documents[0].score",
        "is too large for a 64-bit number",
    );
}

#[test]
fn parameters_are_checked_against_the_policys_schema() {
    check_table(
        r#"
        {"query":"q","documents":["d"],"parameters":{"weight":1.5}}
            parameters.weight: 1.5 is greater than the maximum of 1
        {"query":"q","documents":["d"],"parameters":{"weight":-0.1}}
            parameters.weight: -0.1 is less than the minimum of 0
        {"query":"q","documents":["d"],"parameters":{"weight":"high"}}
            parameters.weight: "high" is not of type "number"
        {"query":"q","documents":["d"],"parameters":{"normalization":"none"}}
            parameters.normalization: "none" is not one of "min-max" or "z-score"
        {"query":"q","documents":["d"],"parameters":{"fields":[]}}
            parameters.fields: [] has less than 1 item
        {"query":"q","documents":["d"],"parameters":{"fields":["text",""]}}
            parameters.fields[1]: no document has a field ``; there are `text`
        {"query":"q","documents":["d"],"parameters":{"fields":["text","text"]}}
            parameters.fields: ["text","text"] has non-unique elements
        {"query":"q","documents":["d"],"parameters":{"wieght":1}}
            parameters.wieght: unknown parameter; the policy takes `fields`, `normalization`, `weight`
        "#,
    );
    let weight = with(r#""parameters":{"weight":1}"#);
    let message = "`parameters.weight`: unknown parameter; the policy takes none";
    check("/v1/rerank/first-stage", weight, 400, message);
}

#[test]
fn fields_that_no_document_has_are_a_slip() {
    check_table(
        r#"
        {"query":"q","documents":[{"fields":{"title":"t","text":null}}],"fields":["title","titel"]}
            fields[1]: no document has a field `titel`; there are `text`, `title`
        {"query":"q","documents":["d"],"parameters":{"fields":["titel"]}}
            parameters.fields[0]: no document has a field `titel`; there are `text`
        {"query":"q","documents":[{}],"fields":["a"]}
            fields[0]: no document has a field `a`; they have none at all
        "#,
    );
}

#[test]
fn too_many_documents_are_413() {
    let documents = json!({"query": "q", "documents": vec!["d"; 51]}).to_string();
    let message = "`documents`: 51 documents are more than the limit of 50 (`--max-documents`)";
    check(NATIVE, documents, 413, message);
    let hit = json!({"_id": "a", "_score": 1.0, "_source": {"text": "d"}});
    let hits = json!(vec![hit; 51]);
    let page =
        |more: &str| format!(r#"{{"query":"q","response":{{"hits":{{"hits":{hits}}}}}{more}}}"#);
    let message = "`response.hits.hits`: 51 hits are more than the limit of 50 \
                   (`--max-documents`); set `window`";
    check(HITS, page(""), 413, message);
    let message = "`window`: 51 hits are more than the limit of 50";
    check(HITS, page(r#","window":51"#), 413, message);
    SERVER.post_text(HITS, page(r#","window":50"#)).ok();
    let pair = json!({"query": "q", "text": "t"});
    let pairs = json!({"input": vec![pair; 51]}).to_string();
    check(
        CROSS,
        pairs,
        413,
        "`input`: 51 texts are more than the limit of 50",
    );
    let texts = json!({"texts": vec!["t"; 51]}).to_string();
    check(
        ENCODER,
        texts,
        413,
        "`texts`: 51 texts are more than the limit of 50",
    );
}

#[test]
fn what_is_no_search_response_is_refused() {
    let check = |response: &str, message: &str| {
        let body = format!(r#"{{"query":"q","response":{response}}}"#);
        check(HITS, body, 400, message);
    };
    let expected = "`response`: expected the search response of an engine, with `hits.hits`";
    check("[]", expected);
    check("\"{}\"", expected);
    check("{}", "`response.hits`: missing");
    check(
        r#"{"hits":{}}"#,
        "`response.hits.hits`: missing; expected an array of hits",
    );
    check(
        r#"{"hits":{"hits":{}}}"#,
        "`response.hits.hits`: expected an array, got an object",
    );
    check(
        r#"{"hits":{"hits":[7]}}"#,
        "`response.hits.hits[0]`: expected an object, got `7`",
    );
    let source = "`response.hits.hits[0]._source`: expected an object, got a string";
    check(r#"{"hits":{"hits":[{"_source":"x"}]}}"#, source);
    check(
        r#"{"error":{"type":"x"},"status":400}"#,
        "`response`: an error of the engine",
    );
}
