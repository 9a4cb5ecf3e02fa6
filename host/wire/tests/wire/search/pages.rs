//! Pages cut from widened answers.

use proptest::collection::vec;
use proptest::prelude::*;
use rerankd_core::{FirstStage, Judgment, Limits, SkipReason, Status, Value as FieldValue};
use rerankd_wire::search::{NotUnderstood, Plan};
use serde_json::{Value, json as value};

use super::engine::{Engine, hit, score};
use super::{Search, json, read, text};
use crate::support::{filtered, reranked, scored};

fn search(from: usize, size: usize, more: &str) -> Search {
    Search::of(&format!(
        r#"{{"query":{{"match":{{"title":"clog"}}}},"from":{from},"size":{size}{more}}}"#
    ))
}

/// The page that the client gets, and whether it was reranked; `judge` ranks the window.
fn page(engine: Engine, search: &Search, judge: Option<&dyn Fn(usize) -> Judgment>) -> Vec<u8> {
    match search.plan().unwrap() {
        Plan::Pass(pass) => engine.answer(&pass.forward.body),
        Plan::Rerank(rewritten) => {
            let answer = engine.answer(&rewritten.widened.body);
            let found = read(&rewritten, &answer);
            let ranking = judge.map(|judge| reranked((0..found.documents()).map(judge).collect()));
            found.page(ranking.as_ref())
        }
    }
}

fn ids(page: &[u8]) -> Vec<String> {
    let page = json(page);
    let hits = page["hits"]["hits"].as_array().unwrap();
    hits.iter()
        .map(|hit| hit["_id"].as_str().unwrap().to_owned())
        .collect()
}

const COMPACT: Engine = Engine {
    hits: 30,
    pretty: false,
};

#[test]
fn a_policy_sees_the_window_with_scores_and_fields() {
    for more in ["", r#","_source":false"#, r#","_source":["price"]"#] {
        let search = search(0, 5, more);
        let rewritten = search.rewritten();
        let answer = COMPACT.answer(&rewritten.widened.body);
        let mut found = read(&rewritten, &answer);
        let request = found.request().unwrap();
        assert_eq!(found.request(), None);
        assert_eq!(request.query, "clog");
        assert_eq!(request.first_stage, FirstStage::Scored);
        assert_eq!(request.documents.len(), 30);
        let document = &request.documents[3];
        assert_eq!(document.id.as_deref(), Some("3"));
        assert_eq!(document.first_stage_score, Some(score(3)));
        let field = |name: &str| {
            let mut fields = document.fields.iter();
            fields
                .find(|field| field.name == name)
                .map(|field| field.value.clone())
        };
        assert_eq!(
            field("title"),
            Some(FieldValue::Text("Clog 3 \u{1f45f}".into())),
            "{more}"
        );
        assert_eq!(
            field("brand.name"),
            Some(FieldValue::Text("Crocs".into())),
            "{more}"
        );
    }
}

#[test]
fn a_policy_sees_the_fields_that_somebody_named_and_no_others() {
    for more in [
        "",
        r#","_source":false"#,
        r#","_source":["price"]"#,
        r#","_source":{"excludes":["title"]}"#,
    ] {
        let search = search(0, 5, more).header("Rerankd-Fields", "title");
        let rewritten = search.rewritten();
        let answer = COMPACT.answer(&rewritten.widened.body);
        let request = read(&rewritten, &answer).request().unwrap();
        let names = request.documents[0]
            .fields
            .iter()
            .map(|field| field.name.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["title"], "{more}");
    }
}

#[test]
fn nothing_found_is_nothing_to_ask() {
    let engine = Engine {
        hits: 0,
        pretty: false,
    };
    let search = search(0, 5, "");
    let rewritten = search.rewritten();
    let answer = engine.answer(&rewritten.widened.body);
    let mut found = read(&rewritten, &answer);
    assert_eq!(found.request(), None);
    assert_eq!(found.page(None), engine.answer(search.body.as_bytes()));
}

#[test]
fn a_reranked_page_has_new_scores_and_the_top_of_the_whole_list() {
    let best_last = |rank: usize| scored(rank as f64);
    let page = page(COMPACT, &search(2, 3, ""), Some(&best_last));
    assert_eq!(ids(&page), ["27", "26", "25"]);
    let page = json(&page);
    assert_eq!(page["hits"]["max_score"], 29.0);
    assert_eq!(page["hits"]["hits"][0]["_score"], 27.0);
}

#[test]
fn hits_that_follow_the_scored_ones_do_not_rise_above_them() {
    // The window is 50 of 60: the first two are scored, the others are not.
    let engine = Engine {
        hits: 60,
        pretty: false,
    };
    let judge = |rank: usize| match rank {
        0 => scored(0.25),
        1 => scored(0.75),
        _ => Judgment::unscored("empty"),
    };
    let scores = |more: &str, from: usize| -> Vec<f64> {
        let page = json(&page(engine, &search(from, 3, more), Some(&judge)));
        let hits = page["hits"]["hits"].as_array().unwrap().clone();
        hits.iter()
            .map(|hit| hit["_score"].as_f64().unwrap())
            .collect()
    };
    assert_eq!(scores("", 0), [0.75, 0.25, 0.25]);
    assert_eq!(scores("", 48), [0.25, 0.25, 0.25]);
    let keep = r#","ext":{"rerankd":{"keep_scores":true}}"#;
    assert_eq!(scores(keep, 0), [0.75, 0.25, score(2)]);
    assert_eq!(scores(keep, 48), [score(48), score(49), score(50)]);
}

#[test]
fn keep_scores_shows_the_engines_score_whatever_is_taken_out() {
    let judge = |rank: usize| scored(rank as f64);
    for (more, fields) in [
        ("", value!({"_first_stage_score": [26.5]})),
        (
            r#","_source":false"#,
            value!({"_first_stage_score": [26.5]}),
        ),
        (
            r#","_source":["price"]"#,
            value!({"_first_stage_score": [26.5]}),
        ),
        (
            r#","_source":["price"],"fields":["price"]"#,
            value!({"_first_stage_score": [26.5], "price": [9_007_199_254_741_022_u64]}),
        ),
    ] {
        let more = format!(r#"{more},"ext":{{"rerankd":{{"keep_scores":true}}}}"#);
        let page = json(&page(COMPACT, &search(0, 1, &more), Some(&judge)));
        assert_eq!(page["hits"]["hits"][0]["fields"], fields, "{more}");
    }
}

#[test]
fn a_ranking_that_did_not_rank_leaves_the_engines_page() {
    let search = search(2, 3, r#","_source":["price"]"#);
    let rewritten = search.rewritten();
    let answer = COMPACT.answer(&rewritten.widened.body);
    let found = read(&rewritten, &answer);
    let mut skipped = reranked(vec![scored(1.0); 30]);
    skipped.status = Status::Skipped(SkipReason::NoText);
    let misfit = reranked(vec![scored(1.0); 29]);
    let alone = COMPACT.answer(search.body.as_bytes());
    for ranking in [None, Some(&skipped), Some(&misfit)] {
        assert_eq!(text(&found.page(ranking)), text(&alone));
    }
}

#[test]
fn hits_below_the_least_score_are_left_out_of_the_window_alone() {
    let engine = Engine {
        hits: 60,
        pretty: false,
    };
    let judge = |rank: usize| scored(50.0 - rank as f64);
    let more = r#","ext":{"rerankd":{"min_score":10.5}}"#;
    // 40 hits are good enough; the window's other 10 places stay empty.
    assert_eq!(
        ids(&page(engine, &search(35, 10, more), Some(&judge))),
        ["35", "36", "37", "38", "39"]
    );
    assert_eq!(
        ids(&page(engine, &search(45, 10, more), Some(&judge))),
        ["50", "51", "52", "53", "54"]
    );
}

#[test]
fn the_fingerprint_tells_windows_apart_and_pages_of_one_do_not_differ() {
    let of = |search: &Search, engine: Engine| {
        let rewritten = search.rewritten();
        let answer = engine.answer(&rewritten.widened.body);
        read(&rewritten, &answer).fingerprint_input().to_vec()
    };
    let first = of(&search(0, 5, ""), COMPACT);
    assert_eq!(of(&search(10, 5, r#","aggs":{}"#), COMPACT), first);
    assert_eq!(of(&search(0, 5, r#","_source":false"#), COMPACT), first);
    let other = Engine {
        hits: 29,
        ..COMPACT
    };
    assert_ne!(of(&search(0, 5, ""), other), first);
    assert_ne!(
        of(&search(0, 5, "").header("Rerankd-Query", "x"), COMPACT),
        first
    );
    assert_ne!(
        of(
            &search(0, 5, "").header("Rerankd-Parameters", "{}"),
            COMPACT
        ),
        first
    );
    assert_ne!(
        of(
            &search(0, 5, "").header("Rerankd-Signals", r#"{"a":1}"#),
            COMPACT
        ),
        first
    );
}

#[test]
fn what_is_no_search_response_is_not_understood() {
    let search = search(0, 5, "");
    let rewritten = search.rewritten();
    let window = r#"{"_shards":{"failed":1,"failures":[{"reason":{"reason":"Result window is too large, from + size must be less than or equal to: [40] but was [50]"}}]},"hits":{"hits":[]}}"#;
    let cases = [
        ("", NotUnderstood::NotJson),
        (r#"{"hits":{"hits":["#, NotUnderstood::NotJson),
        ("{}", NotUnderstood::NoHits),
        (r#"{"hits":{"total":5}}"#, NotUnderstood::NoHits),
        (r#"{"hits":{"hits":[7]}}"#, NotUnderstood::NoHits),
        (window, NotUnderstood::ResultWindow),
    ];
    for (answer, expected) in cases {
        let problem = rewritten
            .read(answer.as_bytes(), &Limits::default())
            .map(|_| ());
        assert_eq!(problem, Err(expected), "{answer}");
    }
}

#[test]
fn bytes_that_only_some_readers_keep_are_kept() {
    let hit = r#"{"_index":"i","_id":"1","_score":1.50,"_source":{"n":12345678901234567890123,"a":1.10,"a":2,"s":"\ud83d"}}"#;
    let answer = format!(
        "{{\"hits\":{{\"hits\":[{hit},{}]}}}}",
        hit.replace("\"1\"", "\"2\"")
    );
    let search = search(0, 1, "");
    let rewritten = search.rewritten();
    let found = read(&rewritten, answer.as_bytes());
    let swapped = reranked(vec![scored(1.0), scored(2.0)]);
    assert_eq!(
        text(&found.page(Some(&swapped))),
        format!(
            "{{\"hits\":{{\"hits\":[{}]}}}}",
            hit.replace("\"1\"", "\"2\"").replace("1.50", "2.0")
        )
    );
}

/// What clients say of the parts of a hit.
fn parts() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just(r#","_source":true"#),
        Just(r#","_source":false"#),
        Just(r#","_source":["price"]"#),
        Just(r#","_source":["title"],"fields":["price"]"#),
        Just(r#","_source":["title","brand.city"]"#),
        Just(r#","_source":["title","brand.city"],"fields":["price"]"#),
        Just(r#","_source":{"excludes":["title"]}"#),
        Just(r#","_source":{"includes":["price"],"excludes":["brand"]}"#),
        Just(r#","_source":["price"],"fields":["title"]"#),
        Just(r#","_source":false,"fields":["title","price"]"#),
    ]
}

fn judgments() -> impl Strategy<Value = Vec<Judgment>> {
    let judgment = prop_oneof![
        6 => (0..20_i32).prop_map(|score| scored(f64::from(score) / 4.0)),
        2 => Just(Judgment::unscored("empty")),
        1 => Just(filtered()),
    ];
    vec(judgment, 50)
}

proptest! {
    #[test]
    fn the_engines_page_is_cut_as_the_engine_would_have_sent_it(
        hits in 0..80_usize,
        from in 0..60_usize,
        size in 1..40_usize,
        more in parts(),
        pretty in any::<bool>(),
    ) {
        let engine = Engine { hits, pretty };
        let search = search(from, size, more);
        let cut = page(engine, &search, None);
        let alone = engine.answer(search.body.as_bytes());
        prop_assert_eq!(text(&cut), text(&alone));
    }

    #[test]
    fn pages_neither_repeat_nor_lose_a_hit(
        hits in 0..80_usize,
        size in 1..30_usize,
        more in parts(),
        judgments in judgments(),
    ) {
        let engine = Engine { hits, pretty: false };
        let judge = |rank: usize| judgments[rank].clone();
        let mut seen = Vec::new();
        for number in 0..=hits.div_ceil(size) {
            let page = page(engine, &search(number * size, size, more), Some(&judge));
            seen.extend(ids(&page).into_iter().map(|id| id.parse::<usize>().unwrap()));
        }
        // The hits behind the window stand on their own places.
        let behind: Vec<usize> = (50..hits).collect();
        prop_assert_eq!(&seen[seen.len() - behind.len()..], &behind[..]);
        let mut expected: Vec<usize> = (0..hits)
            .filter(|&rank| judgments.get(rank) != Some(&filtered()))
            .collect();
        seen.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn nothing_in_a_reranked_hit_changes_but_its_score(
        hits in 1..80_usize,
        from in 0..49_usize,
        size in 1..30_usize,
        more in parts(),
        judgments in judgments(),
    ) {
        let engine = Engine { hits, pretty: false };
        let search = search(from, size, more);
        let judge = |rank: usize| judgments[rank].clone();
        let page = json(&page(engine, &search, Some(&judge)));
        let body = json(search.body.as_bytes());
        for got in page["hits"]["hits"].as_array().unwrap() {
            let rank = got["_id"].as_str().unwrap().parse().unwrap();
            let mut expected = hit(rank, &body);
            expected.insert("_score".into(), got["_score"].clone());
            prop_assert_eq!(got, &Value::Object(expected));
        }
        let mut rest = json(&engine.answer(search.body.as_bytes()));
        rest["hits"]["hits"] = page["hits"]["hits"].clone();
        rest["hits"]["max_score"] = page["hits"]["max_score"].clone();
        prop_assert_eq!(page, rest);
    }

    #[test]
    fn planning_and_reading_arbitrary_bytes_never_panics(
        body in "[{}\\[\\]\":,a-z0-9\\\\_ ]{0,60}",
        query in "[&=%a-z_0-9+]{0,40}",
        answer in vec(any::<u8>(), 0..80),
    ) {
        let wrapped = format!(r#"{{"query":{{"match":{{"title":"clog"}}}},"ext":{body}}}"#);
        for body in [body, wrapped] {
            if let Ok(Plan::Rerank(rewritten)) = Search::of(&body).at(&query).plan() {
                let _ = rewritten.read(&answer, &Limits::default()).map(|found| found.page(None));
            }
        }
    }
}
