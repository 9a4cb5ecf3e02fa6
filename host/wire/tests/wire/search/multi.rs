//! Several searches in one request.

use rerankd_core::Limits;
use rerankd_wire::search::{
    ItemPlan, MultiAnswer, MultiPlan, NotUnderstood, Rules, SearchCall, plan_multi,
};

use super::engine::Engine;
use super::{Fields, Search, json, rule, rules, text};
use crate::support::{reranked, scored};

const QUERY: &str = r#"{"query":{"match":{"title":"clog"}},"size":2}"#;

const ENGINE: Engine = Engine {
    hits: 30,
    pretty: false,
};

fn of(lines: &[&str]) -> Search {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut search = Search::of(&text);
    search.headers.clear();
    search.header("content-type", "application/x-ndjson")
}

fn call(search: &Search) -> SearchCall<'_> {
    SearchCall {
        index: None,
        path: "/_msearch",
        ..search.call()
    }
}

fn planned<'a>(search: &'a Search, rules: &Rules) -> MultiPlan<'a> {
    plan_multi(&call(search), rules, &Fields, &Limits::default()).unwrap()
}

fn decisions(plan: &MultiPlan<'_>) -> Vec<&'static str> {
    let items = plan.items.iter();
    items
        .map(|item| match item {
            ItemPlan::Pass(reason) => reason.name(),
            ItemPlan::Own(status) => status.name(),
            ItemPlan::Rerank(_) => "applied",
        })
        .collect()
}

fn bodies(forward: &[u8]) -> Vec<&str> {
    text(forward).lines().collect()
}

/// What the engine says to each of the searches; an error where the body has `fail`.
fn answer(forward: &[u8]) -> Vec<u8> {
    let lines = bodies(forward);
    let one = |body: &&str| match body.contains("fail") {
        true => format!(
            r#"{{"error":{{"reason":"bad {}"}},"status":400}}"#,
            body.len()
        ),
        false => {
            let answer = ENGINE.answer(body.as_bytes());
            format!(
                r#"{},"status":200}}"#,
                text(&answer).strip_suffix('}').unwrap()
            )
        }
    };
    let responses: Vec<String> = lines.iter().skip(1).step_by(2).map(one).collect();
    format!(r#"{{"took":9,"responses":[{}]}}"#, responses.join(", ")).into_bytes()
}

#[test]
fn each_search_is_decided_by_its_own_index_and_body() {
    let rules = Rules {
        indices: vec![rule("products*")],
        default_rule: None,
    };
    let search = of(&[
        r#"{"index":"products"}"#,
        QUERY,
        r#"{"index":["products-1","products-2"]}"#,
        QUERY,
        r#"{"index":"logs"}"#,
        QUERY,
        "{}",
        QUERY,
        "",
        QUERY,
        r#"{"index":"products"}"#,
        r#"{"size":0}"#,
        r#"{"index":"products"}"#,
        "{",
        r#"{"index":"products"}"#,
        r#"{"query":{"match":{"title":"x"}},"ext":{"rerankd":{"enabled":false}}}"#,
    ]);
    let plan = planned(&search, &rules);
    let expected = [
        "applied",
        "applied",
        "no-rule",
        "no-rule",
        "no-rule",
        "size-zero",
        "unparsable",
        "disabled",
    ];
    assert_eq!(decisions(&plan), expected);
    assert!(plan.reranks());
    let lines = bodies(&plan.forward.body);
    assert_eq!(lines.len(), 16);
    assert_eq!(lines[0], r#"{"index":"products"}"#);
    assert_eq!(
        lines[1],
        r#"{"from":0,"size":100,"query":{"match":{"title":"clog"}}}"#
    );
    assert_eq!(lines[5], QUERY);
    assert_eq!(lines[8], "");
    assert_eq!(lines[13], "{");
    assert_eq!(lines[15], r#"{"query":{"match":{"title":"x"}}}"#);
    let original = bodies(&plan.original().body);
    assert_eq!(
        (original[1], original[15]),
        (QUERY, r#"{"query":{"match":{"title":"x"}}}"#)
    );
}

#[test]
fn what_is_not_reranked_goes_on_byte_for_byte() {
    let mut search = of(&["", "{ }\r", r#"{"size":0} "#]);
    search.query = Some("typed_keys&x=%20".to_owned());
    for body in [
        "\n{ }\r\n{\"size\":0} \r\n",
        "{}\n",
        "{}\n{}",
        "",
        "{}\n{}\n{}\n",
    ] {
        search.body = body.to_owned();
        let plan = planned(&search, &rules());
        assert!(!plan.reranks());
        assert!(plan.forward.is_untouched() && plan.original().is_untouched());
        assert_eq!(text(&plan.forward.body), body);
        assert_eq!(plan.forward.path_and_query, "/_msearch?typed_keys&x=%20");
        assert_eq!(plan.items.is_empty(), plan.passed.is_some());
    }
    let lines = ["{}", QUERY];
    let filtered = of(&lines).at("filter_path=responses.took");
    assert_eq!(decisions(&planned(&filtered, &rules())), ["filter-path"]);
    let foreign = of(&lines).header("accept", "application/cbor");
    assert_eq!(decisions(&planned(&foreign, &rules())), ["content-type"]);
}

#[test]
fn options_hold_for_all_and_those_of_one_search_are_above_them() {
    let own = r#"{"query":{"match":{"title":"clog"}},"ext":{"rerankd":{"window":3}}}"#;
    let search = of(&["{}", QUERY, "{}", own])
        .at("a&rerankd_window=5")
        .header("Rerankd-Key", "k");
    let plan = planned(&search, &rules());
    let windows: Vec<usize> = plan
        .items
        .iter()
        .map(|item| match item {
            ItemPlan::Rerank(rewritten) => rewritten.window,
            ItemPlan::Pass(_) | ItemPlan::Own(_) => 0,
        })
        .collect();
    assert_eq!(windows, [5, 3]);
    assert_eq!(plan.forward.path_and_query, "/_msearch?a");
    assert_eq!(plan.forward.drop_headers, ["rerankd-key"]);
    assert_eq!(plan.original().path_and_query, "/_msearch?a");

    let wrong = r#"{"ext":{"rerankd":{"windw":3}}}"#;
    let search = of(&["{}", QUERY, "{}", wrong]);
    let error = plan_multi(&call(&search), &rules(), &Fields, &Limits::default());
    let message = error.map(|_| ()).unwrap_err().message;
    assert!(
        message.starts_with("search 1 (from 0): `ext.rerankd`: unknown key `windw`"),
        "{message}"
    );
}

#[test]
fn at_most_32_searches_are_reranked() {
    let search = of(&["{}", QUERY].repeat(40));
    let plan = planned(&search, &rules());
    let mut expected = vec!["applied"; 32];
    expected.extend(["limit"; 8]);
    assert_eq!(decisions(&plan), expected);
}

#[test]
fn answers_are_put_together_again() {
    let fail = r#"{"query":{"match":{"title":"fail"}}}"#;
    let search = of(&["{}", QUERY, "{}", r#"{"size":0}"#, "{}", fail, "{}", QUERY]);
    let plan = planned(&search, &rules());
    assert_eq!(
        decisions(&plan),
        ["applied", "size-zero", "applied", "applied"]
    );
    let widened = answer(&plan.forward.body);
    let mut found = plan.read(&widened, &Limits::default()).unwrap();
    assert_eq!(found.outstanding(&plan, &[]), [2]);
    assert!(matches!(
        found.items[2],
        MultiAnswer::Again(NotUnderstood::Refused)
    ));
    let second = answer(&plan.original_of(&[2]).body);
    assert_eq!(bodies(&plan.original_of(&[2]).body), ["{}", fail]);

    // Nothing ranked: the engine's own answer.
    let none = [None, None, None, None];
    assert!(found.answered(&plan, &none, &second).is_empty());
    let page = found.page(&plan, &none).unwrap();
    assert_eq!(text(&page), text(&answer(&plan.original().body)));

    // The last one ranked: nothing else changes.
    let MultiAnswer::Found(last) = &mut found.items[3] else {
        panic!("the last search was widened");
    };
    let documents = last.request().unwrap().documents.len();
    assert_eq!(documents, 30);
    let upside_down = reranked((0..documents).map(|rank| scored(rank as f64)).collect());
    let page = found
        .page(&plan, &[None, None, None, Some(upside_down)])
        .unwrap();
    let (page, mut alone) = (json(&page), json(&answer(&plan.original().body)));
    let hits = &page["responses"][3]["hits"];
    assert_eq!(
        (&hits["hits"][0]["_id"], &hits["max_score"]),
        (&"29".into(), &29.0.into())
    );
    alone["responses"][3]["hits"]["hits"] = hits["hits"].clone();
    alone["responses"][3]["hits"]["max_score"] = hits["max_score"].clone();
    assert_eq!(page, alone);
}

#[test]
fn an_answer_that_does_not_fit_is_not_understood() {
    let search = of(&["{}", QUERY]);
    let plan = planned(&search, &rules());
    for (text, expected) in [
        ("{", NotUnderstood::NotJson),
        ("{}", NotUnderstood::NoHits),
        (r#"{"responses":[]}"#, NotUnderstood::NoHits),
        (r#"{"responses":[{},{}]}"#, NotUnderstood::NoHits),
    ] {
        let problem = plan.read(text.as_bytes(), &Limits::default()).map(|_| ());
        assert_eq!(problem, Err(expected), "{text}");
    }
    let window = br#"{"responses":[{"error":{"reason":"Result window is too large, from + size"},"status":400}]}"#;
    let mut found = plan.read(window, &Limits::default()).unwrap();
    assert!(matches!(
        found.items[0],
        MultiAnswer::Again(NotUnderstood::ResultWindow)
    ));
    let torn = found.answered(&plan, &[None], br#"{"responses":[]}"#);
    assert!(torn.is_empty());
    assert_eq!(found.outstanding(&plan, &[None]), [0]);
    assert_eq!(found.page(&plan, &[None]), Err(NotUnderstood::NoHits));
}

#[test]
fn an_empty_line_in_front_is_no_head_to_opensearch_and_one_to_elasticsearch() {
    let mut search = of(&[]);
    search.body = format!("\n{{}}\n{QUERY}\n");
    let plan = planned(&search, &rules());
    assert_eq!(decisions(&plan), ["applied"]);
    // Who takes it for a head must be able to say what is wrong.
    assert!(text(&plan.forward.body).starts_with("\n{}\n{\"from\":0,"));
    search.body = format!("\n{QUERY}\n\n{QUERY}\n");
    let plan = planned(&search, &rules());
    assert_eq!(decisions(&plan), ["applied", "applied"]);
    assert!(text(&plan.forward.body).starts_with("\n{\"from\":0,"));
}

#[test]
fn a_search_of_several_whose_shards_fail_is_settled_by_its_own_answer() {
    let search = of(&["{}", QUERY, "{}", QUERY]);
    let plan = planned(&search, &rules());
    let failing = |answer: &[u8]| text(answer).replace(r#""failed":0"#, r#""failed":1"#);
    let widened = failing(&answer(&plan.forward.body));
    let mut found = plan.read(widened.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(found.doubtful(), [0, 1]);
    // The first search fails without us too, the second does not.
    let own = text(&answer(&plan.original_of(&[0, 1]).body)).to_owned();
    let own = own.replacen(r#""failed":0"#, r#""failed":1"#, 1);
    found.settle(own.as_bytes()).unwrap();
    assert!(matches!(found.items[0], MultiAnswer::Found(_)));
    assert!(matches!(
        found.items[1],
        MultiAnswer::Again(NotUnderstood::Shards)
    ));
    let page = found.page(&plan, &[None, None]).unwrap();
    let (page, own) = (json(&page), json(own.as_bytes()));
    assert_eq!(page["responses"], own["responses"]);
}

#[test]
fn pages_behind_the_window_come_in_a_second_round() {
    let behind = r#"{"query":{"match":{"title":"clog"}},"from":25,"size":2,"ext":{"rerankd":{"window":20}}}"#;
    let search = of(&["{}", QUERY, "{}", behind]);
    let plan = planned(&search, &rules());
    let widened = answer(&plan.forward.body);
    let mut found = plan.read(&widened, &Limits::default()).unwrap();
    let ranking = |documents: usize| {
        Some(reranked(
            (0..documents)
                .map(|rank| scored(0.5 - rank as f64 / 100.0))
                .collect(),
        ))
    };
    let rankings = [ranking(30), ranking(20)];
    assert_eq!(found.outstanding(&plan, &rankings), [1]);
    let second = plan.outstanding(&found, &rankings);
    assert_eq!(
        bodies(&second.body)[1],
        r#"{"from":25,"size":2,"query":{"match":{"title":"clog"}}}"#
    );
    let second = answer(&second.body);
    assert!(found.answered(&plan, &rankings, &second).is_empty());
    let page = json(&found.page(&plan, &rankings).unwrap());
    let hits = &page["responses"][1]["hits"];
    assert_eq!(hits["hits"][0]["_id"], "25");
    assert_eq!(
        (&hits["max_score"], &hits["hits"][0]["_score"]),
        (&0.5.into(), &0.31.into())
    );
}

#[test]
fn a_search_whose_hits_changed_is_asked_again_and_the_others_stay_ranked() {
    let highlighted =
        r#"{"query":{"match":{"title":"clog"}},"size":2,"highlight":{"fields":{"title":{}}}}"#;
    let search = of(&["{}", highlighted, "{}", QUERY, "{}", highlighted]);
    let plan = planned(&search, &rules());
    let widened = answer(&plan.forward.body);
    let best_last = || {
        Some(reranked(
            (0..30).map(|rank| scored(f64::from(rank))).collect(),
        ))
    };
    let read = || plan.read(&widened, &Limits::default()).unwrap();
    let own = json(&answer(&plan.original().body));
    let first = |page: &serde_json::Value, item: usize| {
        let page = &page["responses"][item]["hits"]["hits"][0]["_id"];
        page.as_str().unwrap().to_owned()
    };

    // The best hit of the last search is gone, or its page is refused.
    let mut found = read();
    let mut rankings = [best_last(), best_last(), best_last()];
    assert_eq!(found.outstanding(&plan, &rankings), [0, 2]);
    let second = answer(&plan.outstanding(&found, &rankings).body);
    let second = text(&second);
    let at = second.rfind(r#""_id":"29""#).unwrap();
    let gone = format!(
        r#"{}"_id":"x"{}"#,
        &second[..at],
        &second[at + r#""_id":"29""#.len()..]
    );
    assert_eq!(found.answered(&plan, &rankings, gone.as_bytes()), [2]);
    assert!(matches!(
        found.items[2],
        MultiAnswer::Again(NotUnderstood::Changed)
    ));
    rankings[2] = None;
    assert!(found.page(&plan, &rankings).is_err());
    assert_eq!(found.outstanding(&plan, &rankings), [2]);
    let third = plan.outstanding(&found, &rankings);
    assert_eq!(bodies(&third.body), ["{}", highlighted]);
    assert!(
        found
            .answered(&plan, &rankings, &answer(&third.body))
            .is_empty()
    );
    let page = json(&found.page(&plan, &rankings).unwrap());
    assert_eq!(
        (first(&page, 0), first(&page, 1)),
        ("29".into(), "29".into())
    );
    assert_eq!(page["responses"][2], own["responses"][2]);

    // Nothing is answered: those that are complete stay ranked.
    let mut found = read();
    let mut rankings = [best_last(), best_last(), best_last()];
    assert_eq!(found.answered(&plan, &rankings, b"{"), [0, 2]);
    (rankings[0], rankings[2]) = (None, None);
    let third = answer(&plan.outstanding(&found, &rankings).body);
    assert!(found.answered(&plan, &rankings, &third).is_empty());
    let page = json(&found.page(&plan, &rankings).unwrap());
    assert_eq!(first(&page, 1), "29");
    for item in [0, 2] {
        assert_eq!(page["responses"][item], own["responses"][item]);
    }
}
