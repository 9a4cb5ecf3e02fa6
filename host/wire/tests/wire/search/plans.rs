//! Which searches are reranked, and what goes to the engine.

use http::Method;
use rerankd_core::PolicySelector;
use rerankd_wire::search::{Endpoint, IndexRule, Plan, Rules, endpoint};

use super::{Search, json, rule, text};

#[test]
fn only_searches_are_searches() {
    let search = |index: Option<&str>| Endpoint::Search {
        index: index.map(str::to_owned),
    };
    let multi = |index: Option<&str>| Endpoint::MultiSearch {
        index: index.map(str::to_owned),
    };
    let cases = [
        ("GET", "/_search", search(None)),
        ("POST", "/a,b*/_search", search(Some("a,b*"))),
        (
            "POST",
            "/%3Clogs-%7Bnow%2Fd%7D%3E/_search",
            search(Some("<logs-{now/d}>")),
        ),
        ("POST", "/_all/_search", search(Some("_all"))),
        ("POST", "/shop/product/_search", search(Some("shop"))),
        ("POST", "/shop/_doc/_search", search(Some("shop"))),
        ("GET", "/_msearch", multi(None)),
        ("POST", "/shop/_msearch", multi(Some("shop"))),
        ("PUT", "/shop/_search", Endpoint::Other),
        ("HEAD", "/shop/_search", Endpoint::Other),
        ("POST", "/_search/", search(None)),
        ("POST", "/shop/_search//", search(Some("shop"))),
        ("GET", "/shop/_msearch/", multi(Some("shop"))),
        (
            "POST",
            "/shop/_search/template",
            Endpoint::Template {
                index: Some("shop".to_owned()),
            },
        ),
        (
            "GET",
            "/_msearch/template",
            Endpoint::MultiTemplate { index: None },
        ),
        ("GET", "/template", Endpoint::Other),
        ("POST", "/_render/template", Endpoint::Other),
        ("POST", "//_search", Endpoint::Other),
        ("POST", "/_search/scroll", Endpoint::Other),
        ("GET", "/_search/pipeline/_search", Endpoint::Other),
        ("POST", "/shop/_search/point_in_time", Endpoint::Other),
        ("POST", "/shop/_search_shards", Endpoint::Other),
        ("POST", "/shop/_knn_search", Endpoint::Other),
        ("POST", "/shop/_async_search", Endpoint::Other),
        ("POST", "/_plugins/_ml/_search", Endpoint::Other),
        ("POST", "/_plugins/_ml/models/_search", Endpoint::Other),
        ("POST", "/shop/_doc/7/_search", Endpoint::Other),
        ("GET", "/shop/%FF/_search", search(Some("shop"))),
        ("GET", "/%FF/_search", Endpoint::Other),
        ("POST", "/shop/_bulk", Endpoint::Other),
        ("GET", "/", Endpoint::Other),
        ("GET", "", Endpoint::Other),
    ];
    for (method, path, expected) in cases {
        let method = Method::try_from(method).unwrap();
        assert_eq!(endpoint(&method, path), expected, "{method} {path}");
    }
}

#[test]
fn each_kind_of_search_is_decided() {
    let cases = [
        // Bodies.
        (r#"{"query":{"match":{"title":"crocs"}}}"#, "applied"),
        (
            r#"{"query":{"match":{"title":"crocs"}},"from":"10","size":"20"}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"aggs":{},"highlight":{},"profile":true,"explain":true}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"collapse":{"field":"brand"},"track_total_hits":false}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"pit":{"id":"x","keep_alive":"1m"},"min_score":2}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":"_score"}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":["_score"]}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":[{"_score":"desc"}]}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":{"_score":{"order":"desc"}}}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":[{"_score":"asc"}]}"#,
            "sort",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":[]}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":{}}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":[{"_score":{}}]}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":[{"_score":{"order":"DESC"}}]}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":["_score","_score"]}"#,
            "sort",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":null}"#,
            "sort",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"pit":{"id":"x"},"sort":[{"_score":"desc"}]}"#,
            "sort",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"pit":{"id":"x"},"sort":[]}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"ext":{"ubi":{"query_id":"7"}}}"#,
            "ubi",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"ext":{"mmr":{}}}"#,
            "reranked-already",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"terminate_after":100,"track_total_hits":false}"#,
            "size-dependent",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"terminate_after":100}"#,
            "applied",
        ),
        (
            r#"{"from":10,"query":{"hybrid":{"queries":[{"match":{"title":"crocs"}}]}}}"#,
            "unparsable",
        ),
        (
            r#"{"size":60,"query":{"hybrid":{"queries":[{"match":{"title":"crocs"}}]}}}"#,
            "window-exceeded",
        ),
        (
            r#"{"from":10,"query":{"hybrid":{"pagination_depth":20,"queries":[{"match":{"title":"crocs"}}]}}}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":["_score","_doc"]}"#,
            "sort",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"sort":[{"price":"asc"}],"track_scores":true}"#,
            "sort",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"size":0,"sort":["price"]}"#,
            "size-zero",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"search_after":[1],"sort":["price"]}"#,
            "search-after",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"slice":{"id":0,"max":2}}"#,
            "slice",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"rescore":{"query":{}}}"#,
            "rescore",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"rank":{"rrf":{}}}"#,
            "reranked-already",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"search_pipeline":"p"}"#,
            "search-pipeline",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"search_pipeline":"_none"}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"search_pipeline":"p","ext":{"rerankd":{"enabled":true}}}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"from":49,"size":10}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"from":50,"size":10}"#,
            "applied",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"from":1,"size":10000}"#,
            "window-exceeded",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"from":-1}"#,
            "unparsable",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"size":null}"#,
            "unparsable",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"size":1,"size":2}"#,
            "unparsable",
        ),
        (r#"{"query":{"match":{"title":"crocs"}}"#, "unparsable"),
        (r#"["query"]"#, "unparsable"),
        (
            r#"{"query":{"match":{"title":"crocs"}},"stored_fields":"_none_"}"#,
            "stored-fields",
        ),
        (
            r#"{"query":{"match":{"title":"crocs"}},"ext":{"rerankd":{"enabled":false}}}"#,
            "disabled",
        ),
        (r#"{"query":{"match_all":{}}}"#, "no-query"),
        ("{}", "no-query"),
        (" ", "no-query"),
        ("", "no-query"),
    ];
    for (body, expected) in cases {
        assert_eq!(Search::of(body).decision(), expected, "{body}");
    }
}

#[test]
fn parameters_are_above_the_body() {
    let body = r#"{"query":{"match":{"title":"crocs"}},"from":10000}"#;
    let cases = [
        ("from=0", "applied"),
        ("from=0&sort=", "applied"),
        ("from=0&sort=_score", "applied"),
        ("from=0&sort=_score:desc", "applied"),
        ("from=0&sort=_score:DESC", "applied"),
        ("from=0&sort=_score:asc", "sort"),
        ("from=0&sort=_score,_doc", "sort"),
        ("sort=_score", "window-exceeded"),
        ("from=0&sort=price:asc", "sort"),
        ("from=0&sort=_score&size=0", "size-zero"),
        ("from=0&sort=_score&size=ten", "unparsable"),
        ("from=0&from=1&sort=_score", "unparsable"),
        ("from=0&sort=_score&scroll=1m", "scroll"),
        ("from=0&sort=_score&filter_path=hits", "filter-path"),
        ("from=0&sort=_score&format=yaml", "content-type"),
        ("from=0&sort=_score&format=json&pretty", "applied"),
        ("from=0&sort=_score&search_pipeline=p", "search-pipeline"),
        ("from=0&sort=_score&search_pipeline=_none", "applied"),
        (
            "from=0&sort=_score&routing=a&preference=_local&typed_keys",
            "applied",
        ),
        ("from=0&sort=_score&stored_fields=_none_", "stored-fields"),
        ("from=0&sort=_score&q=clogs", "applied"),
        ("from=0&sort=_score&q=title:clogs", "applied"),
        ("from=0&sort=_score&q=title:clo*", "no-query"),
        ("from=0&X-Amz-Signature=6f0", "signed"),
        (
            "from=0&terminate_after=9&track_total_hits=9",
            "size-dependent",
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(Search::of(body).at(query).decision(), expected, "{query}");
    }
}

#[test]
fn keys_of_the_url_stand_behind_those_of_the_body() {
    let sorted = |sort: &str, query: &str| {
        let body = format!(r#"{{"query":{{"match":{{"title":"crocs"}}}},"sort":{sort}}}"#);
        Search::of(&body).at(query).decision()
    };
    assert_eq!(sorted(r#"["price"]"#, "sort=_score"), "sort");
    assert_eq!(sorted(r#"["_score"]"#, "sort=_score"), "sort");
    assert_eq!(sorted("[]", "sort=_score"), "applied");
    assert_eq!(sorted(r#"["_score"]"#, "sort="), "applied");
}

#[test]
fn only_json_is_read() {
    let body = r#"{"query":{"match":{"title":"crocs"}}}"#;
    let bare = |content_type: &str, accept: &str| {
        let mut search = Search::of(body);
        search.headers.clear();
        for (name, value) in [("content-type", content_type), ("accept", accept)] {
            if !value.is_empty() {
                search = search.header(name, value);
            }
        }
        search.decision()
    };
    let versioned = "application/vnd.elasticsearch+json; compatible-with=8";
    assert_eq!(bare("application/json; charset=UTF-8", "*/*"), "applied");
    assert_eq!(bare(versioned, versioned), "applied");
    assert_eq!(bare("APPLICATION/JSON", ""), "applied");
    assert_eq!(bare("application/cbor", ""), "content-type");
    assert_eq!(bare("application/yaml", ""), "content-type");
    assert_eq!(bare("text/plain", ""), "content-type");
    assert_eq!(bare("", ""), "content-type");
    assert_eq!(bare("application/json", "application/yaml"), "content-type");
    assert_eq!(
        bare("application/json", "application/smile"),
        "content-type"
    );
}

#[test]
fn the_first_rule_that_matches_counts() {
    let disabled = IndexRule {
        enabled: false,
        ..rule("products-private*")
    };
    let rules = Rules {
        indices: vec![disabled, rule("products*"), rule("a*b*c")],
        default_rule: Some(rule("*")),
    };
    let body = r#"{"query":{"match":{"title":"crocs"}}}"#;
    let search = Search::of(body);
    let cases = [
        (Some("products"), "applied"),
        (Some("products-private-7"), "disabled"),
        (Some("products,products-7"), "applied"),
        (Some("products,products-private"), "no-rule"),
        (Some("products,-products-private"), "applied"),
        (Some("anything"), "applied"),
        (Some("axbxc"), "applied"),
        (Some(".kibana"), "no-rule"),
        (None, "applied"),
    ];
    for (index, expected) in cases {
        let mut call = search.call();
        call.index = index;
        let plan = rerankd_wire::search::plan(&call, &rules, &super::Fields, &Default::default());
        let decision = match plan.unwrap() {
            Plan::Pass(pass) => pass.reason.name(),
            Plan::Rerank(_) => "applied",
        };
        assert_eq!(decision, expected, "{index:?}");
    }
    let none = Rules::default();
    let Plan::Pass(pass) = search.plan_with(&none).unwrap() else {
        panic!("reranked without a rule");
    };
    assert_eq!(pass.reason.name(), "no-rule");
}

#[test]
fn what_is_passed_goes_on_byte_for_byte() {
    let body = "{ \"query\" : {\"match_all\":{}},\n\"size\":18446744073709551616 }\n";
    let search = Search::of(body).at("pretty&routing=a%2Fb+c&&x=%ff");
    let forward = search.pass().forward;
    assert!(forward.is_untouched());
    assert_eq!(
        forward.path_and_query,
        "/products/_search?pretty&routing=a%2Fb+c&&x=%ff"
    );
    assert_eq!(text(&forward.body), body);
    assert_eq!(forward.content_type, None);
    assert!(forward.drop_headers.is_empty());
}

#[test]
fn options_are_taken_out_and_nothing_else() {
    let cases = [
        (
            r#"{"size":0, "ext":{"rerankd":{"window":5}} , "query":{"match_all":{}}}"#,
            r#"{"size":0 , "query":{"match_all":{}}}"#,
        ),
        (r#"{"ext" : {"rerankd":{}}, "size":0}"#, r#"{"size":0}"#),
        (
            r#"{"size":0,"ext":{"a":1 , "rerankd":null, "b":[1.50]}}"#,
            r#"{"size":0,"ext":{"a":1, "b":[1.50]}}"#,
        ),
        (r#"{ "ext":{"rerankd":{}} }"#, r#"{  }"#),
    ];
    for (body, expected) in cases {
        let search = Search::of(body)
            .at("a=1&rerankd_explain=false&b=%20&rerankd_key=x")
            .header("Rerankd-Signals", "{}")
            .header("X-Opaque-Id", "7");
        let forward = search.pass().forward;
        assert!(!forward.is_untouched());
        assert_eq!(text(&forward.body), expected);
        assert_eq!(forward.path_and_query, "/products/_search?a=1&b=%20");
        assert_eq!(forward.drop_headers, ["rerankd-signals"]);
    }
}

#[test]
fn a_widened_search_asks_for_the_window_and_keeps_the_rest() {
    let body = r#"{"size": 5,"query":{"match":{"title":"crocs"}},"from":10 ,"aggs":{"a":{"max":{"field":"p"}}},"ext":{"rerankd":{"window":30},"x":{}},"pit":{"id":"p=="}}"#;
    let search = Search::of(body).at("routing=a%2Fb&from=3&pretty&rerankd_keep_scores");
    let rewritten = search.rewritten();
    assert_eq!(rewritten.target, PolicySelector::parse("semantic-blend"));
    assert_eq!(rewritten.window, 30);
    assert!(rewritten.cut_is_exact);
    assert_eq!(
        text(&rewritten.widened.body),
        r#"{"from":0,"size":30,"query":{"match":{"title":"crocs"}},"aggs":{"a":{"max":{"field":"p"}}},"ext":{"x":{}},"pit":{"id":"p=="}}"#
    );
    assert_eq!(
        rewritten.widened.path_and_query,
        "/products/_search?routing=a%2Fb&pretty"
    );
    assert_eq!(
        rewritten.original.path_and_query,
        "/products/_search?routing=a%2Fb&from=3&pretty"
    );
    assert_eq!(
        text(&rewritten.original.body),
        body.replace(r#""rerankd":{"window":30},"#, "")
    );
}

#[test]
fn a_page_that_crosses_the_window_is_fetched_whole() {
    let body = r#"{"query":{"match":{"title":"crocs"}},"from":45,"size":20}"#;
    let search = Search::of(body);
    let rewritten = search.rewritten();
    assert_eq!(json(&rewritten.widened.body)["size"], 65);
    assert_eq!(rewritten.window, 50);
}

#[test]
fn a_search_in_the_url_gets_a_body_and_says_what_it_is() {
    let versioned = "application/vnd.elasticsearch+json; compatible-with=8";
    let search = Search::default().at("q=red+crocs&size=3&from=2&df=title");
    let rewritten = search.rewritten();
    assert_eq!(text(&rewritten.widened.body), r#"{"from":0,"size":50}"#);
    assert_eq!(
        rewritten.widened.path_and_query,
        "/products/_search?q=red+crocs&df=title"
    );
    let said = rewritten.widened.content_type.as_ref().unwrap();
    assert_eq!(said, "application/json");
    assert!(rewritten.original.is_untouched());
    assert_eq!(search.request().query, "red crocs");

    let search = search.clone().header("accept", versioned);
    let rewritten = search.rewritten();
    assert_eq!(rewritten.widened.content_type.as_ref().unwrap(), versioned);
}

#[test]
fn a_body_in_the_url_is_a_body() {
    let source = "source=%7B%22query%22%3A%7B%22match%22%3A%7B%22title%22%3A%22red+crocs%22%7D%7D%2C%22ext%22%3A%7B%22rerankd%22%3A%7B%22window%22%3A7%7D%7D%7D&source_content_type=application%2Fjson&routing=a";
    let search = Search::default().at(source);
    let rewritten = search.rewritten();
    assert_eq!(search.request().query, "red crocs");
    for forward in [&rewritten.original, &rewritten.widened] {
        assert_eq!(forward.path_and_query, "/products/_search?routing=a");
        assert_eq!(forward.content_type.as_ref().unwrap(), "application/json");
    }
    assert_eq!(
        text(&rewritten.original.body),
        r#"{"query":{"match":{"title":"red crocs"}}}"#
    );
    assert_eq!(json(&rewritten.widened.body)["size"], 10);
    assert_eq!(rewritten.window, 7);
}

#[test]
fn the_policys_fields_are_asked_for_where_the_client_has_no_part() {
    let widened = |members: &str, query: &str| {
        let body = format!(r#"{{"query":{{"match":{{"title":"crocs"}}}}{members}}}"#);
        let search = Search::of(&body).at(query);
        let rewritten = search.rewritten();
        let body = json(&rewritten.widened.body);
        let target = rewritten.widened.path_and_query.clone().into_owned();
        let part = |name: &str| {
            body.get(name)
                .map(|part| part.to_string())
                .unwrap_or_default()
        };
        (
            part("_source"),
            part("fields"),
            target,
            rewritten.cut_is_exact,
        )
    };
    const NEEDED: &str = r#"["title","brand.name"]"#;
    const PRICE_AND_NEEDED: &str = r#"{"excludes":[],"includes":["price","title","brand.name"]}"#;
    // The client's members and parameters; what goes out in the body; whether it is exact.
    let cases = [
        ("", "a=1", "", "", true),
        (r#","_source":true"#, "a=1", "true", "", true),
        (r#","_source":"*""#, "a=1", r#""*""#, "", true),
        (r#","_source":false"#, "a=1", NEEDED, "", true),
        (
            r#","_source":["title","brand"]"#,
            "a=1",
            r#"["title","brand"]"#,
            "",
            true,
        ),
        (
            r#","_source":["t*","brand.*"]"#,
            "a=1",
            r#"["t*","brand.*"]"#,
            "",
            true,
        ),
        (r#","_source":["price"]"#, "a=1", PRICE_AND_NEEDED, "", true),
        (r#","_source":"price""#, "a=1", PRICE_AND_NEEDED, "", true),
        (
            r#","_source":["price"],"fields":["id"]"#,
            "a=1",
            PRICE_AND_NEEDED,
            r#"["id"]"#,
            true,
        ),
        (
            r#","_source":["title","brand.city"]"#,
            "a=1",
            r#"["title","brand.city"]"#,
            r#"["brand.name"]"#,
            false,
        ),
        (
            r#","_source":["*.city"]"#,
            "a=1",
            r#"["*.city"]"#,
            NEEDED,
            false,
        ),
        (
            r#","_source":{"excludes":["tit*"]}"#,
            "a=1",
            r#"{"excludes":["tit*"]}"#,
            r#"["title"]"#,
            false,
        ),
        (
            r#","_source":{"excludes":["title","secret"]}"#,
            "a=1",
            r#"{"excludes":["secret"],"includes":[]}"#,
            "",
            true,
        ),
        (
            r#","_source":{"exclude":"title"}"#,
            "a=1",
            r#"{"excludes":["_rerankd"],"includes":[]}"#,
            "",
            true,
        ),
        (
            r#","_source":{"excludes":["description"]}"#,
            "a=1",
            r#"{"excludes":["description"]}"#,
            "",
            true,
        ),
        (r#","_source":true"#, "_source=false&a=1", NEEDED, "", true),
        (r#","_source":false"#, "_source=true&a=1", "false", "", true),
        ("", "_source=price&a=1", PRICE_AND_NEEDED, "", true),
        ("", "_source_includes=title,brand.name&a=1", "", "", true),
        (
            "",
            "_source_excludes=brand&a=1",
            r#"{"excludes":["_rerankd"],"includes":[]}"#,
            "",
            true,
        ),
        (r#","stored_fields":["price"]"#, "a=1", NEEDED, "", true),
        (
            r#","stored_fields":["price","_source"]"#,
            "a=1",
            "",
            "",
            true,
        ),
        (r#","script_fields":{"s":{}}"#, "a=1", NEEDED, "", false),
        ("", "stored_fields=price&a=1", NEEDED, "", true),
        (
            r#","_source":["brand.city"],"fields":["id"]"#,
            "a=1",
            r#"["brand.city"]"#,
            r#"["id","title","brand.name"]"#,
            false,
        ),
        (
            r#","_source":["brand.city"],"fields":["title"],"docvalue_fields":["brand.name"]"#,
            "a=1",
            r#"["brand.city"]"#,
            r#"["title"]"#,
            true,
        ),
    ];
    for (members, query, source, fields, exact) in cases {
        let (got_source, got_fields, target, got_exact) = widened(members, query);
        let what = format!("{members} {query}");
        assert_eq!(got_source, source, "{what}");
        assert_eq!(got_fields, fields, "{what}");
        assert_eq!(got_exact, exact, "{what}");
        // What the body says now is said in one place alone.
        let in_url = target.contains("_source");
        assert_eq!(
            in_url,
            query.contains("_source") && ["", "false"].contains(&source),
            "{what}"
        );
        assert!(target.ends_with("a=1"), "{target}");
    }
    let entangled =
        r#"{"query":{"match":{"title":"x"}},"_source":["brand.id"],"fields":["brand.city"]}"#;
    assert_eq!(Search::of(entangled).decision(), "stored-fields");
}

#[test]
fn a_fusion_is_not_asked_for_more_than_it_ranks() {
    let body = |inside: &str, from: usize| {
        format!(
            r#"{{"from":{from},"retriever":{{"rrf":{{{inside}"retrievers":[{{"standard":{{"query":{{"match":{{"t":"x"}}}}}}}},{{"knn":{{"k":5}}}}]}}}}}}"#
        )
    };
    let search = Search::of(&body(r#""rank_window_size":20,"#, 0));
    let rewritten = search.rewritten();
    assert_eq!((rewritten.window, rewritten.cut_is_exact), (20, false));
    assert_eq!(json(&rewritten.widened.body)["size"], 20);
    assert_eq!(Search::of(&body("", 0)).rewritten().window, 10);
    assert_eq!(Search::of(&body("", 5)).decision(), "window-exceeded");
}
