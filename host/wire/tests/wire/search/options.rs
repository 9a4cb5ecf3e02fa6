//! What a search says of its reranking.

use std::time::Duration;

use rerankd_core::{Field, Limits, OnFailure, PolicySelector, Value};
use rerankd_wire::search::{IndexRule, Plan, Rules, plan};

use super::{Fields, Search, rule};

const QUERY: &str = r#"{"query":{"match":{"title":"crocs"}}}"#;

fn with_ext(options: &str) -> Search {
    Search::of(&format!(
        r#"{{"query":{{"match":{{"title":"crocs"}}}},"ext":{{"rerankd":{options}}}}}"#
    ))
}

/// All options but `enabled`, in each carrier.
fn full() -> [Search; 3] {
    let ext = r#"{"policy":"semantic-blend@1.2","query":"red crocs","fields":["title","text"],
        "window":7,"min_score":0.5,"keep_scores":true,"timeout_ms":250,"on_failure":"error",
        "parameters":{"weight":0.8},"signals":{"country":"FR"},"key":"user-17","explain":false}"#;
    let params = "rerankd_policy=semantic-blend%401.2&rerankd_query=red+crocs&rerankd_fields=title,text\
        &rerankd_window=7&rerankd_min_score=0.5&rerankd_keep_scores=true&rerankd_timeout_ms=250\
        &rerankd_on_failure=error&rerankd_parameters=%7B%22weight%22%3A0.8%7D\
        &rerankd_signals=%7B%22country%22%3A%22FR%22%7D&rerankd_key=user-17&rerankd_explain=false";
    let headers = Search::of(QUERY)
        .header("Rerankd-Policy", "semantic-blend@1.2")
        .header("Rerankd-Query", "red crocs")
        .header("Rerankd-Fields", "title, text")
        .header("Rerankd-Window", "7")
        .header("Rerankd-Min-Score", "0.5")
        .header("Rerankd-Keep-Scores", "true")
        .header("Rerankd-Timeout-Ms", "250")
        .header("Rerankd-On-Failure", "error")
        .header("Rerankd-Parameters", r#"{"weight":0.8}"#)
        .header("Rerankd-Signals", r#"{"country":"FR"}"#)
        .header("Rerankd-Key", "user-17")
        .header("Rerankd-Explain", "false");
    [with_ext(ext), headers, Search::of(QUERY).at(params)]
}

#[test]
fn each_carrier_takes_all_options() {
    for search in full() {
        let rewritten = search.rewritten();
        assert_eq!(
            rewritten.target,
            PolicySelector::parse("semantic-blend@1.2")
        );
        assert_eq!(rewritten.window, 7);
        assert_eq!(rewritten.on_failure, OnFailure::Error);
        assert_eq!(rewritten.timeout, Some(Duration::from_millis(250)));
        assert_eq!(rewritten.key.as_deref(), Some("user-17"));
        let request = search.request();
        assert_eq!(request.query, "red crocs");
        assert_eq!(
            request.fields,
            Some(vec!["title".to_owned(), "text".to_owned()])
        );
        assert_eq!(request.min_score, Some(0.5));
        assert_eq!(request.parameters.as_deref(), Some(r#"{"weight":0.8}"#));
        let country = Field {
            name: "country".into(),
            value: Value::Text("FR".into()),
        };
        assert_eq!(request.signals, [country]);
        assert!(!request.explain);
    }
}

#[test]
fn explanations_that_no_page_shows_are_refused_by_name() {
    for (search, at) in [
        (with_ext(r#"{"explain":true}"#), "ext.rerankd.explain"),
        (
            Search::of(QUERY).header("Rerankd-Explain", "true"),
            "Rerankd-explain",
        ),
        (Search::of(QUERY).at("rerankd_explain"), "rerankd_explain"),
    ] {
        let error = search.plan_with(&super::rules()).map(|_| ()).unwrap_err();
        assert_eq!(error.at.as_deref(), Some(at));
        assert!(error.message.contains("/v1/rerank/{policy}"), "{error}");
    }
}

#[test]
fn the_body_is_above_headers_above_parameters_above_the_rule() {
    let window = |search: &Search| search.rewritten().window;
    let all = with_ext(r#"{"window":1}"#)
        .header("Rerankd-Window", "2")
        .at("rerankd_window=3");
    assert_eq!(window(&all), 1);
    let two = Search::of(QUERY)
        .header("Rerankd-Window", "2")
        .at("rerankd_window=3");
    assert_eq!(window(&two), 2);
    assert_eq!(window(&Search::of(QUERY).at("rerankd_window=3")), 3);
    assert_eq!(window(&Search::of(QUERY)), 50);
    assert_eq!(
        window(&with_ext(r#"{"window":null}"#).at("rerankd_window=3")),
        3
    );
}

#[test]
fn a_rule_says_what_a_search_does_not() {
    let rules = Rules {
        indices: vec![IndexRule {
            enabled: false,
            fields: Some(vec!["text".into()]),
            window: 20,
            max_window: 30,
            query_path: Some("query.match.title".into()),
            min_score: Some(0.25),
            keep_scores: true,
            timeout: Some(Duration::from_millis(90)),
            on_failure: OnFailure::Error,
            parameters: Some("{}".into()),
            ..rule("products")
        }],
        default_rule: None,
    };
    let planned = |search: &Search| match search.plan_with(&rules).unwrap() {
        Plan::Pass(pass) => Err(pass.reason.name()),
        Plan::Rerank(rewritten) => Ok((rewritten.window, rewritten.timeout, rewritten.on_failure)),
    };
    assert_eq!(planned(&Search::of(QUERY)), Err("disabled"));
    let timeout = Some(Duration::from_millis(90));
    assert_eq!(
        planned(&Search::of(QUERY).at("rerankd_enabled=true")),
        Ok((20, timeout, OnFailure::Error))
    );
    let too_far = Search::of(QUERY).at("rerankd_enabled=true&rerankd_window=31");
    let error = too_far.plan_with(&rules).map(|_| ()).unwrap_err();
    assert_eq!(
        error.message,
        "`rerankd_window`: 31 is more than the limit of 30 for this index"
    );
    let other = r#"{"query":{"match":{"text":"crocs"}}}"#;
    let other = Search::of(other).at("rerankd_enabled=true");
    assert_eq!(planned(&other), Err("no-query"));
}

#[test]
fn a_window_is_never_above_what_the_server_takes() {
    let search = Search::of(QUERY);
    let limits = Limits {
        max_documents: 8,
        ..Limits::default()
    };
    let plan = plan(&search.call(), &super::rules(), &Fields, &limits).unwrap();
    let Plan::Rerank(rewritten) = plan else {
        panic!("passed");
    };
    assert_eq!(rewritten.window, 8);
}

#[test]
fn what_is_wrong_with_an_option_is_named_with_its_place() {
    let header = |name: &str, value: &str| Search::of(QUERY).header(name, value);
    let cases = [
        (
            with_ext(r#"{"windw":5}"#),
            "`ext.rerankd`: unknown key `windw` (did you mean `window`?)",
        ),
        (
            with_ext("[]"),
            "`ext.rerankd`: expected an object, got an array",
        ),
        (
            with_ext(r#"{"window":0}"#),
            "`ext.rerankd.window`: expected an integer of at least 1",
        ),
        (
            with_ext(r#"{"window":1001}"#),
            "`ext.rerankd.window`: 1001 is more than the limit of 1000",
        ),
        (
            with_ext(r#"{"window":5,"window":6}"#),
            "`ext.rerankd.window`: stands twice",
        ),
        (
            with_ext(r#"{"enabled":"yes"}"#),
            "`ext.rerankd.enabled`: expected `true` or `false`",
        ),
        (
            with_ext(r#"{"policy":"other"}"#),
            "`ext.rerankd.policy`: `other` is not allowed for this index; allowed: semantic-blend",
        ),
        (
            with_ext(r#"{"on_failure":"ignore"}"#),
            "`ext.rerankd.on_failure`: expected `first-stage` or `error`",
        ),
        (
            with_ext(r#"{"parameters":[]}"#),
            "`ext.rerankd.parameters`: expected an object",
        ),
        (with_ext(r#"{"fields":[]}"#), "`ext.rerankd.fields`: empty"),
        (with_ext(r#"{"query":" "}"#), "`ext.rerankd.query`: empty"),
        (
            with_ext(&format!(r#"{{"query":"{}"}}"#, "x".repeat(65536))),
            "`ext.rerankd`: all options together",
        ),
        (
            header("Rerankd-Windw", "5"),
            "`Rerankd-windw`: unknown key `windw`",
        ),
        (
            header("Rerankd-Window", "five"),
            "`Rerankd-window`: expected an integer of at least 1, got a string",
        ),
        (
            header("Rerankd-Window", "5").header("Rerankd-Window", "6"),
            "`Rerankd-window`: stands twice",
        ),
        (
            header("Rerankd-Min-Score", "NaN"),
            "`Rerankd-min-score`: expected a number",
        ),
        (
            Search::of(QUERY).at("rerankd_host=x"),
            "`rerankd_host`: unknown key `host`",
        ),
        (
            Search::of(QUERY).at("rerankd_parameters=%7B"),
            "`rerankd_parameters`: expected an object, got a string",
        ),
        (
            Search::of(QUERY).at("rerankd_key=a&rerankd_key=b"),
            "`rerankd_key`: stands twice in the URL",
        ),
        // Wrong options are wrong, whether the search is reranked or not.
        (
            Search::of(r#"{"size":0}"#).at("rerankd_windw=1"),
            "`rerankd_windw`: unknown key `windw`",
        ),
    ];
    for (search, expected) in cases {
        let error = search.error();
        assert!(error.starts_with(expected), "{error}");
    }
}
