//! The text that was searched for.

use rerankd_wire::search::Plan;

use super::Search;

/// The text, or in angle brackets why there is none.
fn found(search: &Search) -> String {
    match search.plan().unwrap() {
        Plan::Pass(pass) => format!("<{}>", pass.reason.name()),
        Plan::Rerank(_) => search.request().query,
    }
}

#[test]
fn texts_come_from_clauses_that_score() {
    let cases = [
        (r#"{"match":{"title":"crocs"}}"#, "crocs"),
        (
            r#"{"match":{"title":{"query":" crocs clog ","operator":"and"}}}"#,
            "crocs clog",
        ),
        (r#"{"match_phrase":{"title":"crocs"}}"#, "crocs"),
        (
            r#"{"match_phrase_prefix":{"title":{"query":"crocs"}}}"#,
            "crocs",
        ),
        (r#"{"match_bool_prefix":{"title":"crocs"}}"#, "crocs"),
        (
            r#"{"multi_match":{"query":"crocs","fields":["title^3","text"]}}"#,
            "crocs",
        ),
        (
            r#"{"combined_fields":{"query":"crocs","fields":["a"]}}"#,
            "crocs",
        ),
        (
            r#"{"query_string":{"query":"red crocs t-shirt"}}"#,
            "red crocs t-shirt",
        ),
        (r#"{"query_string":{"query":"title:crocs"}}"#, "crocs"),
        (
            r#"{"query_string":{"query":"title:crocs AND brand:x"}}"#,
            "<no-query>",
        ),
        (
            r#"{"query_string":{"query":"title:crocs brand:acme"}}"#,
            "<ambiguous-query>",
        ),
        (
            r#"{"query_string":{"query":"wi\\-fi running shoes"}}"#,
            "wi-fi running shoes",
        ),
        // {"match":{"title":"crocs"}}
        (
            r#"{"wrapper":{"query":"eyJtYXRjaCI6eyJ0aXRsZSI6ImNyb2NzIn19"}}"#,
            "crocs",
        ),
        (r#"{"wrapper":{"query":"no base64!"}}"#, "<no-query>"),
        (
            r#"{"agentic":{"query_text":"crocs","query_fields":["title"]}}"#,
            "crocs",
        ),
        (
            r#"{"query_string":{"query":"red AND crocs"}}"#,
            "<no-query>",
        ),
        (r#"{"query_string":{"query":"+red crocs"}}"#, "<no-query>"),
        (r#"{"query_string":{"query":"croc*"}}"#, "<no-query>"),
        (r#"{"query_string":{"query":"crocs -red"}}"#, "<no-query>"),
        (
            r#"{"query_string":{"query":"\"red crocs\""}}"#,
            "<no-query>",
        ),
        (
            r#"{"simple_query_string":{"query":"red and crocs"}}"#,
            "red and crocs",
        ),
        (
            r#"{"simple_query_string":{"query":"red | crocs"}}"#,
            "<no-query>",
        ),
        (
            r#"{"simple_query_string":{"query":"crocs -red"}}"#,
            "<no-query>",
        ),
        (
            r#"{"bool":{"must":[{"match":{"t":"crocs"}}],"filter":[{"match":{"t":"red"}}]}}"#,
            "crocs",
        ),
        (
            r#"{"bool":{"must":{"match":{"t":"crocs"}},"must_not":{"match":{"t":"red"}}}}"#,
            "crocs",
        ),
        (
            r#"{"bool":{"should":[{"match":{"a":"crocs"}},{"match_phrase":{"b":"crocs "}},{"term":{"c":"x"}}]}}"#,
            "crocs",
        ),
        (
            r#"{"bool":{"should":[{"match":{"a":"crocs"}},{"match":{"b":"clogs"}}]}}"#,
            "<ambiguous-query>",
        ),
        (
            r#"{"bool":{"filter":[{"match":{"t":"red"}}]}}"#,
            "<no-query>",
        ),
        (
            r#"{"dis_max":{"queries":[{"match":{"a":"crocs"}},{"match":{"b":"crocs"}}]}}"#,
            "crocs",
        ),
        (
            r#"{"function_score":{"query":{"match":{"a":"crocs"}},"functions":[{"filter":{"match":{"b":"no"}}}]}}"#,
            "crocs",
        ),
        (
            r#"{"script_score":{"query":{"match":{"a":"crocs"}},"script":{"source":"1"}}}"#,
            "crocs",
        ),
        (
            r#"{"constant_score":{"filter":{"match":{"a":"crocs"}}}}"#,
            "crocs",
        ),
        (
            r#"{"boosting":{"positive":{"match":{"a":"crocs"}},"negative":{"match":{"a":"red"}}}}"#,
            "crocs",
        ),
        (
            r#"{"nested":{"path":"v","query":{"match":{"v.a":"crocs"}}}}"#,
            "crocs",
        ),
        (
            r#"{"hybrid":{"queries":[{"match":{"a":"crocs"}},{"neural":{"v":{"query_text":"crocs","k":5}}}]}}"#,
            "crocs",
        ),
        (r#"{"neural":{"v":{"query_text":"crocs"}}}"#, "crocs"),
        (r#"{"semantic":{"field":"v","query":"crocs"}}"#, "crocs"),
        (
            r#"{"sparse_vector":{"field":"v","inference_id":"i","query":"crocs"}}"#,
            "crocs",
        ),
        (
            r#"{"text_expansion":{"v":{"model_id":"m","model_text":"crocs"}}}"#,
            "crocs",
        ),
        (r#"{"knn":{"field":"v","query_vector":[1]}}"#, "<no-query>"),
        (
            r#"{"pinned":{"ids":["1"],"organic":{"match":{"a":"crocs"}}}}"#,
            "<no-query>",
        ),
        (r#"{"match":{"price":10}}"#, "<no-query>"),
        (r#"{"match":{"title":"  "}}"#, "<no-query>"),
        (
            r#"{"match":{"title":"cr\u00f6cs \ud83d\udc5f"}}"#,
            "cröcs 👟",
        ),
        ("7", "<no-query>"),
    ];
    for (query, expected) in cases {
        let search = Search::of(&format!(r#"{{"query":{query}}}"#));
        assert_eq!(found(&search), expected, "{query}");
    }
}

#[test]
fn texts_come_from_retrievers_that_do_not_rerank() {
    let standard = r#"{"standard":{"query":{"match":{"t":"crocs"}}}}"#;
    let cases = [
        (standard.to_owned(), "crocs"),
        (
            format!(r#"{{"rrf":{{"retrievers":[{standard},{{"knn":{{"field":"v"}}}}]}}}}"#),
            "crocs",
        ),
        (
            format!(r#"{{"rrf":{{"retrievers":[{{"retriever":{standard},"weight":2}}]}}}}"#),
            "crocs",
        ),
        (
            format!(
                r#"{{"linear":{{"retrievers":[{{"retriever":{standard},"normalizer":"minmax"}}]}}}}"#
            ),
            "crocs",
        ),
        (
            r#"{"rrf":{"query":"crocs","fields":["a"]}}"#.to_owned(),
            "crocs",
        ),
        (r#"{"knn":{"field":"v"}}"#.to_owned(), "<no-query>"),
        (
            format!(
                r#"{{"text_similarity_reranker":{{"retriever":{standard},"inference_text":"x"}}}}"#
            ),
            "<reranked-already>",
        ),
        (
            format!(
                r#"{{"rrf":{{"retrievers":[{{"text_similarity_reranker":{{"retriever":{standard}}}}}]}}}}"#
            ),
            "<reranked-already>",
        ),
        (
            r#"{"standard":{"query":{"match":{"t":"x"}},"sort":["p"]}}"#.to_owned(),
            "<sort>",
        ),
        (
            r#"{"standard":{"query":{"match":{"t":"x"}},"search_after":[1]}}"#.to_owned(),
            "<search-after>",
        ),
    ];
    for (retriever, expected) in cases {
        let search = Search::of(&format!(r#"{{"retriever":{retriever}}}"#));
        assert_eq!(found(&search), expected, "{retriever}");
    }
}

#[test]
fn q_replaces_the_query_of_the_body() {
    let search = Search::of(r#"{"query":{"match":{"t":"crocs"}}}"#);
    assert_eq!(found(&search.clone().at("q=red%20clogs")), "red clogs");
    assert_eq!(found(&search.clone().at("q=t:clogs")), "clogs");
    assert_eq!(found(&search.clone().at("q=t:clogs*")), "<no-query>");
}

#[test]
fn a_text_that_is_named_counts_before_one_that_is_found() {
    let body = |more: &str| {
        let query = r#"{"bool":{"must":[{"match":{"t.en":{"query":"a"}}},{"match":{"t":"b"}}]}}"#;
        format!(r#"{{"query":{query},{more}}}"#)
    };
    let cases = [
        (r#""size":1"#, "<ambiguous-query>"),
        (r#""ext":{"rerankd":{"query":"c"}}"#, "c"),
        (
            r#""ext":{"rerankd":{"query_path":"query.bool.must[1].match.t"}}"#,
            "b",
        ),
        (
            r#""ext":{"rerankd":{"query_path":"query.bool.must[0].match.t.en.query"}}"#,
            "a",
        ),
        (
            r#""ext":{"rerankd":{"query_path":"query.bool.must[9].match.t"}}"#,
            "<no-query>",
        ),
        (
            r#""ext":{"rerankd":{"query_path":"query.bool"}}"#,
            "<no-query>",
        ),
        (
            r#""ext":{"rerankd":{"query":"c","query_path":"query.bool.must[1].match.t"}}"#,
            "c",
        ),
        (
            r#""ext":{"rerank":{"query_context":{"query_text":"d"}}}"#,
            "d",
        ),
        (
            r#""ext":{"rerank":{"query_context":{"query_text_path":"query.bool.must[1].match.t"}}}"#,
            "b",
        ),
        (
            r#""ext":{"rerank":{"query_context":{"query_text":"d"}},"rerankd":{"query":"c"}}"#,
            "c",
        ),
    ];
    for (more, expected) in cases {
        assert_eq!(found(&Search::of(&body(more))), expected, "{more}");
    }
    // A carrier's text is above the place that a lower one names, and the other way round.
    let search = Search::of(&body(
        r#""ext":{"rerankd":{"query_path":"query.bool.must[1].match.t"}}"#,
    ));
    assert_eq!(found(&search.header("Rerankd-Query", "c")), "b");
    let search =
        Search::of(&body(r#""size":1"#)).at("rerankd_query_path=query.bool.must[1].match.t");
    assert_eq!(found(&search.header("Rerankd-Query", "c")), "c");
}

#[test]
fn a_query_of_any_depth_is_no_harm() {
    let deep = |depth: usize| {
        let mut query = r#"{"match":{"t":"x"}}"#.to_owned();
        for _ in 0..depth {
            query = format!(r#"{{"bool":{{"must":[{query}]}}}}"#);
        }
        Search::of(&format!(r#"{{"query":{query}}}"#))
    };
    assert_eq!(found(&deep(20)), "x");
    assert_eq!(found(&deep(5000)), "<no-query>");
}
