//! What goes to the engine in place of a search, so that nothing of its answer changes but the order.

use rerankd_wire::search::{IndexRule, Plan, Rules};

use super::{Search, json, rule, text};

#[test]
fn signed_searches_are_passed_as_they_are() {
    let body = r#"{"query":{"match":{"title":"crocs"}}}"#;
    for (name, value) in [
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=a/b, Signature=c",
        ),
        ("authorization", "AWS4-ECDSA-P256-SHA256 Credential=a"),
        ("x-amz-content-sha256", "e3b0"),
        ("content-md5", "x=="),
        ("content-digest", "sha-256=:x:"),
        ("signature", "sig1=:x:"),
    ] {
        let search = Search::of(body).header(name, value);
        let pass = search.pass();
        assert_eq!(pass.reason.name(), "signed", "{name}");
        assert!(pass.forward.is_untouched());
    }
    let basic = Search::of(body).header("authorization", "Basic YTpi");
    assert_eq!(basic.decision(), "applied");
}

#[test]
fn neighbours_are_as_many_as_the_clients_own_search_wants() {
    let widened = |members: &str, query: &str| {
        let body = format!(r#"{{"query":{{"match":{{"title":"crocs"}}}},{members}}}"#);
        let search = Search::of(&body).at(query);
        let rewritten = search.rewritten();
        json(&rewritten.widened.body)
    };
    let knn = r#""knn":{"field":"v","query_vector":[1]}"#;
    assert_eq!(widened(knn, "a=1")["knn"]["k"], 10);
    assert_eq!(widened(&format!(r#""size":7,{knn}"#), "a=1")["knn"]["k"], 7);
    // The section is read before the URL.
    let in_url = widened(&format!(r#""size":"7",{knn}"#), "size=3");
    assert_eq!(in_url["knn"]["k"], 7);
    let own = r#""knn":[{"k":3,"field":"v"},{"field":"w"}]"#;
    let own = widened(own, "a=1");
    assert_eq!(
        (&own["knn"][0]["k"], &own["knn"][1]["k"]),
        (&3.into(), &10.into())
    );

    let inside = |clause: &str, query: &str| {
        let body = format!(
            r#"{{"size":20,"query":{{"bool":{{"must":{{"match":{{"t":"x"}}}},"should":[{clause}]}}}}}}"#
        );
        let search = Search::of(&body).at(query);
        let rewritten = search.rewritten();
        json(&rewritten.widened.body)["query"]["bool"]["should"][0]["knn"].clone()
    };
    let clause = r#"{"knn":{"field":"v","query_vector":[1]}}"#;
    assert_eq!(inside(clause, "a=1")["k"], 20);
    assert_eq!(inside(clause, "size=3")["k"], 3);
    let few = r#"{"knn":{"field":"v","query_vector":[1],"num_candidates":5}}"#;
    assert_eq!(inside(few, "a=1")["k"], 5);
    let said = r#"{"knn":{"field":"v","query_vector":[1],"k":2}}"#;
    assert_eq!(inside(said, "a=1")["k"], 2);
    let of_opensearch = r#"{"knn":{"v":{"vector":[1],"k":2}}}"#;
    assert_eq!(inside(of_opensearch, "a=1")["v"]["k"], 2);
    assert_eq!(inside(of_opensearch, "a=1").get("k"), None);
}

#[test]
fn a_rule_may_keep_rescored_searches_within_what_is_rescored() {
    let rules = Rules {
        indices: vec![IndexRule {
            keep_rescore: true,
            ..rule("*")
        }],
        default_rule: None,
    };
    let of = |rescore: &str| {
        let body = format!(r#"{{"query":{{"match":{{"t":"x"}}}},"rescore":{rescore}}}"#);
        let search = Search::of(&body);
        match search.plan_with(&rules).unwrap() {
            Plan::Pass(pass) => Err(pass.reason.name()),
            Plan::Rerank(rewritten) => Ok((
                rewritten.window,
                json(&rewritten.widened.body)["size"].as_u64().unwrap(),
            )),
        }
    };
    assert_eq!(of(r#"{"window_size":40,"query":{}}"#), Ok((40, 40)));
    assert_eq!(
        of(r#"[{"window_size":40},{"window_size":"20"}]"#),
        Ok((20, 20))
    );
    assert_eq!(of(r#"{"window_size":400}"#), Ok((100, 100)));
    assert_eq!(of(r#"{"query":{}}"#), Ok((10, 10)));
    assert_eq!(of(r#"{"window_size":"x"}"#), Err("unparsable"));
    assert_eq!(of(r#"{"window_size":0}"#), Err("window-exceeded"));
}

#[test]
fn the_text_of_the_window_is_enough_for_a_page_that_reaches_far_behind_it() {
    let body = r#"{"query":{"match":{"title":"crocs"}},"size":10000,"_source":false,"aggs":{"a":{}},"highlight":{},"collapse":{"field":"f","inner_hits":{"name":"x"}}}"#;
    let search = Search::of(body).at("docvalue_fields=x&_source_includes=y&routing=a");
    let rewritten = search.rewritten();
    assert!(rewritten.is_split());
    assert_eq!(
        text(&rewritten.widened.body),
        r#"{"from":0,"size":50,"_source":["title","brand.name"],"query":{"match":{"title":"crocs"}},"collapse":{"field":"f"}}"#
    );
    assert_eq!(
        rewritten.widened.path_and_query,
        "/products/_search?routing=a"
    );
    // All of it is the client's anyway.
    let whole = Search::of(r#"{"query":{"match":{"title":"crocs"}},"size":10000}"#);
    assert!(!whole.rewritten().is_split());
    let near = Search::of(r#"{"query":{"match":{"title":"crocs"}},"size":100,"_source":false}"#);
    assert!(!near.rewritten().is_split());
}
