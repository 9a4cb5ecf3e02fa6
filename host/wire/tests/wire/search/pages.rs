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
            let search = ranking
                .as_ref()
                .and_then(|ranking| rewritten.page_search(&found, ranking));
            match (search, &ranking) {
                (Some(search), Some(ranking)) => {
                    let answer = engine.answer(&search.body);
                    rewritten.page(&found, ranking, &answer).unwrap()
                }
                _ if !rewritten.cut_is_exact && ranking.is_none() => {
                    engine.answer(&rewritten.original.body)
                }
                _ => found.page(ranking.as_ref()),
            }
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
fn hits_below_the_least_score_leave_no_holes() {
    let engine = Engine {
        hits: 60,
        pretty: false,
    };
    let judge = |rank: usize| scored(50.0 - rank as f64);
    let more = r#","ext":{"rerankd":{"min_score":10.5}}"#;
    // 40 hits of the window are good enough; those behind it follow at once.
    for (from, size, expected) in [
        (35, 10, 35..40),
        (45, 10, 55..60),
        (60, 10, 60..60),
        (0, 60, 0..40),
    ] {
        let mut expected: Vec<String> = expected.map(|rank| rank.to_string()).collect();
        if from < 40 {
            let tail = 50..(50 + from + size - 40).min(60);
            expected.extend(tail.map(|rank| rank.to_string()));
        }
        let page = page(engine, &search(from, size, more), Some(&judge));
        assert_eq!(ids(&page), expected, "{from}");
    }
}

#[test]
fn no_page_behind_the_window_has_scores_above_those_before_it() {
    let engine = Engine {
        hits: 80,
        pretty: false,
    };
    let judge = |rank: usize| scored(1.0 - rank as f64 / 100.0);
    let at = |from: usize, more: &str| json(&page(engine, &search(from, 5, more), Some(&judge)));
    let last = at(45, "")["hits"]["hits"][4]["_score"].clone();
    for from in [50, 60, 75] {
        let page = at(from, r#","_source":false"#);
        assert_eq!(page["hits"]["max_score"], 1.0);
        for (place, hit) in page["hits"]["hits"].as_array().unwrap().iter().enumerate() {
            assert_eq!(hit["_score"], last, "{from}");
            assert_eq!(hit["_id"], (from + place).to_string());
            assert_eq!(hit.get("_source"), None);
        }
    }
    let keep = r#","ext":{"rerankd":{"keep_scores":true}}"#;
    let kept = at(60, keep);
    let hit = &kept["hits"]["hits"][0];
    assert_eq!(hit["_score"], score(60));
    assert_eq!(hit["fields"]["_first_stage_score"], value!([score(60)]));
}

/// The filter for hits of the one index that the engine has.
fn named(ids: &[&str]) -> Value {
    value!({"bool": {"filter": [{"term": {"_index": "products"}}, {"ids": {"values": ids}}]}})
}

#[test]
fn pages_at_the_end_of_what_the_engine_gives_are_short_or_empty() {
    let engine = Engine {
        hits: 10_030,
        pretty: false,
    };
    // 40 of the 50 hits of the window are left out.
    let judge = |rank: usize| scored(if rank < 10 { 1.0 } else { 0.0 });
    let more = r#","ext":{"rerankd":{"min_score":0.5}}"#;
    let at = |from: usize| {
        let search = search(from, 20, more);
        let rewritten = search.rewritten();
        let answer = engine.answer(&rewritten.widened.body);
        let found = read(&rewritten, &answer);
        let ranking = reranked((0..50).map(judge).collect());
        let second = rewritten.page_search(&found, &ranking).unwrap();
        let asked = json(&second.body);
        let page = rewritten.page(&found, &ranking, &engine.answer(&second.body));
        let page = page.unwrap();
        assert_eq!(json(&page)["hits"]["total"]["value"], 10_030);
        (asked["from"].clone(), asked["size"].clone(), ids(&page))
    };
    let (from, size, page) = at(9_940);
    assert_eq!((from, size), (9_980.into(), 20.into()));
    assert_eq!((page.len(), &*page[0], &*page[19]), (20, "9980", "9999"));
    let (from, size, page) = at(9_950);
    assert_eq!((from, size), (9_990.into(), 10.into()));
    assert_eq!((page.len(), &*page[9]), (10, "9999"));
    assert_eq!(at(9_970), (10_000.into(), 0.into(), Vec::new()));
}

#[test]
fn hits_of_several_indices_are_asked_for_by_index_and_id() {
    let search = search(0, 3, r#","highlight":{}"#);
    let rewritten = search.rewritten();
    let hits = |indices: usize, each: usize| {
        let hit = |rank: usize| {
            let (index, id) = (rank % indices, rank / indices);
            format!(r#"{{"_index":"i{index}","_id":"{id}","_score":1.0}}"#)
        };
        let hits: Vec<String> = (0..indices * each).map(hit).collect();
        format!(r#"{{"hits":{{"hits":[{}]}}}}"#, hits.join(","))
    };
    let asked = |answer: &str| {
        let found = read(&rewritten, answer.as_bytes());
        let ranking = reranked(vec![scored(1.0); found.documents()]);
        json(&rewritten.page_search(&found, &ranking).unwrap().body)
    };
    let of = |index: &str, ids: &[&str]| value!({"bool": {"filter": [{"term": {"_index": index}}, {"ids": {"values": ids}}]}});
    let two = asked(&hits(2, 2));
    let filters = [of("i0", &["0", "1"]), of("i1", &["0"])];
    assert_eq!(two["post_filter"], value!({"bool": {"should": filters}}));
    assert_eq!(two["size"], 3);

    // As many hits as are on the page, whatever the number of indices.
    let large = self::search(0, 25, r#","highlight":{}"#);
    let rewritten = large.rewritten();
    let answer = hits(25, 2);
    let found = read(&rewritten, answer.as_bytes());
    let ranking = reranked(vec![scored(1.0); 50]);
    let many = json(&rewritten.page_search(&found, &ranking).unwrap().body);
    assert_eq!(many["size"], 25);
    let filters = many["post_filter"]["bool"]["should"].as_array().unwrap();
    assert_eq!(filters.len(), 25);
}

#[test]
fn what_makes_hits_expensive_is_asked_for_those_of_the_page_alone() {
    let judge = |rank: usize| scored(rank as f64);
    for more in [
        r#","highlight":{"fields":{"title":{}}}"#,
        r#","highlight":{},"_source":["price"]"#,
        r#","highlight":{},"_source":false,"fields":["price"],"explain":true"#,
        r#","script_fields":{"s":{}},"_source":true,"aggs":{"a":{}}"#,
    ] {
        let search = search(2, 3, more);
        let rewritten = search.rewritten();
        assert!(rewritten.is_split(), "{more}");
        let widened = json(&rewritten.widened.body);
        assert_eq!(widened["_source"], value!(["title", "brand.name"]));
        for gone in ["highlight", "script_fields", "fields", "explain"] {
            assert_eq!(widened.get(gone), None, "{more}");
        }
        assert_eq!(widened.get("aggs").is_some(), more.contains("aggs"));
        let answer = COMPACT.answer(&rewritten.widened.body);
        let found = read(&rewritten, &answer);
        let ranking = reranked((0..30).map(judge).collect());
        let second = rewritten.page_search(&found, &ranking).unwrap();
        let asked = json(&second.body);
        assert_eq!(asked["post_filter"], named(&["27", "26", "25"]));
        assert_eq!((&asked["from"], &asked["size"]), (&0.into(), &3.into()));
        assert_eq!(asked.get("aggs"), None);
        // The same page as if all of it had been asked for at once.
        let page = json(&page(COMPACT, &search, Some(&judge)));
        let body = json(search.body.as_bytes());
        for got in page["hits"]["hits"].as_array().unwrap() {
            let rank = got["_id"].as_str().unwrap().parse().unwrap();
            let mut expected = hit(rank, &body);
            expected.insert("_score".into(), got["_score"].clone());
            assert_eq!(got, &Value::Object(expected), "{more}");
        }
        let mut alone = json(&COMPACT.answer(search.body.as_bytes()));
        alone["hits"]["hits"] = page["hits"]["hits"].clone();
        alone["hits"]["max_score"] = 29.0.into();
        assert_eq!(page, alone);
        // A hit that is gone meanwhile.
        let short = text(&COMPACT.answer(&second.body)).replace(r#""_id":"26""#, r#""_id":"x""#);
        let problem = rewritten.page(&found, &ranking, short.as_bytes());
        assert_eq!(problem, Err(NotUnderstood::Changed));
    }
    let own = search(0, 3, r#","highlight":{},"post_filter":{"term":{"a":1}}"#);
    let rewritten = own.rewritten();
    let answer = COMPACT.answer(&rewritten.widened.body);
    let found = read(&rewritten, &answer);
    let ranking = reranked((0..30).map(judge).collect());
    let second = rewritten.page_search(&found, &ranking).unwrap();
    assert_eq!(
        json(&second.body)["post_filter"],
        value!({"bool": {"filter": [{"term": {"a": 1}}, named(&["29", "28", "27"])]}})
    );
    for whole in [
        r#","highlight":{},"timeout":"1s""#,
        r#","highlight":{},"knn":{"field":"v"}"#,
        r#","collapse":{"field":"f"}"#,
        "",
    ] {
        assert!(!search(0, 3, whole).rewritten().is_split(), "{whole}");
    }
    // Most of the window is shown anyway.
    assert!(!search(0, 30, r#","highlight":{}"#).rewritten().is_split());
}

#[test]
fn groups_are_asked_for_by_what_they_have_in_common() {
    let more = r#","collapse":{"field":"brand","inner_hits":{"name":"x"}}"#;
    let search = search(0, 3, more);
    let rewritten = search.rewritten();
    let widened = json(&rewritten.widened.body);
    assert_eq!(widened["collapse"], value!({"field": "brand"}));
    let answer = |fields: [&str; 3]| {
        let hit = |(rank, fields): (usize, &str)| {
            format!(
                r#"{{"_index":"i","_id":"{rank}","_score":{}.0{fields}}}"#,
                3 - rank
            )
        };
        let hits: Vec<String> = fields.into_iter().enumerate().map(hit).collect();
        format!(r#"{{"hits":{{"hits":[{}]}}}}"#, hits.join(","))
    };
    let filter = |fields: [&str; 3]| {
        let answer = answer(fields);
        let found = read(&rewritten, answer.as_bytes());
        let ranking = reranked((0..3).map(|rank| scored(f64::from(rank))).collect());
        let second = rewritten.page_search(&found, &ranking).unwrap();
        json(&second.body)["post_filter"].clone()
    };
    let brand = [
        r#","fields":{"brand":["a"]}"#,
        r#","fields":{"brand":["b"]}"#,
        r#","fields":{"brand":["c"]}"#,
    ];
    let terms = value!({"terms": {"brand": ["c", "b", "a"]}});
    assert_eq!(filter(brand), terms);
    let others = value!({"bool": {"must_not": {"exists": {"field": "brand"}}}});
    let with_none = filter([brand[0], r#","fields":{"brand":[null]}"#, brand[2]]);
    let terms = value!({"terms": {"brand": ["c", "a"]}});
    assert_eq!(with_none, value!({"bool": {"should": [terms, others]}}));
    assert_eq!(filter([brand[0], "", brand[2]]), with_none);
}

#[test]
fn a_page_whose_hits_changed_between_two_searches_is_not_made() {
    let engine = Engine {
        hits: 300,
        pretty: false,
    };
    let search = search(0, 200, r#","_source":false"#);
    let rewritten = search.rewritten();
    let answer = engine.answer(&rewritten.widened.body);
    let found = read(&rewritten, &answer);
    let ranking = reranked((0..50).map(|rank| scored(f64::from(rank))).collect());
    let page_search = rewritten.page_search(&found, &ranking).unwrap();
    let own = engine.answer(&page_search.body);
    let page = rewritten.page(&found, &ranking, &own).unwrap();
    let first = ids(&page);
    assert_eq!((first.len(), first[0].as_str()), (200, "49"));
    let changed = text(&own).replace(r#""_id":"7""#, r#""_id":"x""#);
    let problem = rewritten.page(&found, &ranking, changed.as_bytes());
    assert_eq!(problem, Err(NotUnderstood::Changed));
    let twice = text(&own).replace(r#""_id":"7""#, r#""_id":"8""#);
    let problem = rewritten.page(&found, &ranking, twice.as_bytes());
    assert_eq!(problem, Err(NotUnderstood::Changed));
}

#[test]
fn failed_shards_are_held_against_the_search_as_it_was_sent() {
    let search = search(0, 5, "");
    let rewritten = search.rewritten();
    let whole = text(&COMPACT.answer(&rewritten.widened.body)).to_owned();
    let own = text(&COMPACT.answer(search.body.as_bytes())).to_owned();
    let failed = |answer: &str| {
        answer.replace(
            r#""failed":0"#,
            r#""failed":1,"failures":[{"shard":1,"reason":{"type":"script_exception"}}]"#,
        )
    };
    let late = |answer: &str| answer.replace(r#""timed_out":false"#, r#""timed_out":true"#);
    let read = |answer: &str| {
        let found = rewritten.read(answer.as_bytes(), &Limits::default());
        found.map(|found| {
            let agrees = |own: &str| found.agrees(own.as_bytes());
            (
                found.doubt(),
                agrees(&own),
                agrees(&failed(&own)),
                agrees(&late(&own)),
            )
        })
    };
    let shards = Some(NotUnderstood::Shards);
    assert_eq!(read(&whole), Ok((None, true, false, false)));
    assert_eq!(read(&failed(&whole)), Ok((shards, false, true, false)));
    assert_eq!(read(&late(&whole)), Ok((shards, false, false, true)));
    // A shard failed where hits are fetched: they were counted before.
    let lost = failed(&whole).replace(r#""value":30"#, r#""value":31"#);
    assert_eq!(read(&lost), Err(NotUnderstood::Shards));
    let many = r#"{"relation":"gte","value":10000}"#;
    let uncounted = failed(&whole).replace(r#"{"relation":"eq","value":30}"#, many);
    assert_eq!(read(&uncounted), Err(NotUnderstood::Shards));
    let sorted = whole.replacen(r#""_id":"0""#, r#""_id":"0","sort":[1]"#, 1);
    assert_eq!(read(&sorted), Err(NotUnderstood::Sorted));
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
        // A least score says that hits may be left out.
        let more = format!(r#"{more},"ext":{{"rerankd":{{"min_score":-1}}}}"#);
        for number in 0..=hits.div_ceil(size) {
            let page = page(engine, &search(number * size, size, &more), Some(&judge));
            seen.extend(ids(&page).into_iter().map(|id| id.parse::<usize>().unwrap()));
        }
        // The hits behind the window follow in their own order.
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
