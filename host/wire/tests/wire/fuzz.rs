//! The fuzz target `wire` (docs/fuzzing.md) without libFuzzer, and bodies that are large in one way.

use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, Method};
use rerankd_core::{Limits, RerankRequest};
use rerankd_wire::search::{ItemPlan, Plan, SearchCall, plan, plan_multi};
use rerankd_wire::superset::Superset;
use rerankd_wire::tei::Predict;
use rerankd_wire::vllm::Score;
use rerankd_wire::{Call, Decoded, Protocol};
use serde_json::json;

use crate::search::{Fields, rule, rules};
use crate::support::{path, reranked, scored};

#[path = "../../../../fuzz/src/replay.rs"]
#[allow(unreachable_pub, reason = "it is public where it is a library")]
mod replay;
#[path = "../../../../fuzz/src/wire.rs"]
#[allow(unreachable_pub, reason = "it is public where it is a library")]
mod target;

#[test]
fn no_mutation_of_a_seed_breaks_a_promise() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    replay::replay("wire", target::run, 20_000, scratch);
}

/// CPU time for a body of about a megabyte, at most: some twenty times what a walk through it takes.
const MOST_CPU: Duration = Duration::from_millis(1500);

#[track_caller]
fn in_time<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let before = replay::thread_cpu();
    let result = work();
    if let (Some(before), Some(after)) = (before, replay::thread_cpu()) {
        let took = after - before;
        assert!(took < MOST_CPU, "{what}: {took:?} of CPU time");
    }
    result
}

fn decode<'a>(protocol: &dyn Protocol, body: &'a [u8], limits: &'a Limits) -> Decoded<'a> {
    let decoded = protocol.decode(&Call {
        path: path(protocol),
        target: "",
        body,
        limits,
        request_id: "1",
        unix_seconds: 0,
    });
    decoded.unwrap_or_else(|error| panic!("{error}"))
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{prefix}{number}"))
        .collect()
}

#[test]
fn options_beside_many_queries_are_not_multiplied() {
    let limits = Limits::default();
    let long = "x".repeat(200_000);
    let pairs: Vec<_> = names("q", 1000)
        .into_iter()
        .map(|query| json!([query, "t"]))
        .collect();
    let queries = names("q", 1000);
    for (protocol, body) in [
        (
            &Predict as &dyn Protocol,
            json!({"inputs": pairs, "signals": {"s": long}}),
        ),
        (
            &Score,
            json!({"text_1": queries, "text_2": queries, "rerankd": {"parameters": {"p": long}}}),
        ),
    ] {
        let body = body.to_string();
        let call = Call {
            path: path(protocol),
            target: "",
            body: body.as_bytes(),
            limits: &limits,
            request_id: "1",
            unix_seconds: 0,
        };
        let error = protocol.decode(&call).err().unwrap();
        assert_eq!(error.kind, rerankd_core::ErrorKind::TooLarge, "{error:?}");
        assert!(error.message.contains("1000 queries"), "{error:?}");
    }
    let query = "q".repeat(500_000);
    let one = json!({"text_1": query, "text_2": names("t", 1000)}).to_string();
    let decoded = in_time("one query", || decode(&Score, one.as_bytes(), &limits));
    assert_eq!(decoded.requests[0].documents.len(), 1000);
    // What clients send is far from that.
    let few = json!({"inputs": pairs, "parameters": {}, "signals": {"user": "u-17"}});
    assert_eq!(
        decode(&Predict, few.to_string().as_bytes(), &limits)
            .requests
            .len(),
        1000
    );
}

#[test]
fn many_rank_fields_of_long_documents_take_time_in_proportion() {
    let limits = Limits::default();
    let document = |number: usize| {
        let mut document = json!({"body": "x".repeat(800)});
        document[format!("f{number}")] = json!("a");
        document
    };
    let documents: Vec<_> = (0..1000).map(document).collect();
    let body = json!({"query": "q", "rank_fields": names("f", 1000), "documents": documents,
        "return_documents": true});
    let body = body.to_string();
    in_time("rank_fields", || {
        let decoded = decode(&Superset, body.as_bytes(), &limits);
        let judgments = (0..1000)
            .map(|index| scored(f64::from(index) / 1000.0))
            .collect();
        decoded.reply.encode(&[reranked(judgments)]).unwrap();
    });
}

fn search<'a>(headers: &'a HeaderMap, query: Option<&'a str>, body: &'a [u8]) -> SearchCall<'a> {
    SearchCall {
        index: Some("products"),
        method: &Method::POST,
        path: "/products/_search",
        query,
        headers,
        body,
    }
}

fn json_headers(content_type: &'static str) -> HeaderMap {
    let value = http::HeaderValue::from_static(content_type);
    HeaderMap::from_iter([(http::header::CONTENT_TYPE, value)])
}

#[test]
fn many_names_in_a_search_take_time_in_proportion() {
    let headers = json_headers("application/json");
    let options = json!({"rerankd": {"fields": names("f", 1000)}});
    let more = json!({"rerankd": {"parameters": {"fields": names("p", 8000)}}});
    let query = json!({"match": {"title": "shoe"}});
    let patterns = names("*g*h", 100_000);
    let columns: Vec<_> = names("c", 50_000)
        .into_iter()
        .map(|name| json!({"field": name}))
        .collect();
    for (what, body) in [
        (
            "_source",
            json!({"query": query, "_source": patterns, "ext": options}),
        ),
        (
            "_source, by parameters",
            json!({"query": query, "_source": patterns, "ext": more}),
        ),
        (
            "excludes",
            json!({"query": query, "_source": {"excludes": patterns}, "ext": options}),
        ),
        (
            "docvalue_fields",
            json!({"query": query, "_source": ["a*"], "docvalue_fields": columns, "ext": options}),
        ),
        (
            "one long pattern",
            json!({"query": query, "_source": ["*a".repeat(500_000)], "ext": options}),
        ),
        (
            "stored_fields",
            json!({"query": query, "stored_fields": patterns, "_source": ["a*"], "ext": options}),
        ),
    ] {
        let body = body.to_string();
        in_time(what, || {
            let call = search(&headers, None, body.as_bytes());
            plan(&call, &rules(), &Fields, &Limits::default()).unwrap();
        });
    }
}

#[test]
fn many_fields_of_many_hits_take_time_in_proportion() {
    let headers = json_headers("application/json");
    let mut all = rule("*");
    all.window = 1000;
    let rules = rerankd_wire::search::Rules {
        indices: vec![all],
        default_rule: None,
    };
    // The fields of the policy come last in each hit, and are not those that were named.
    let members: Vec<String> = names("m", 200)
        .iter()
        .map(|name| format!("\"{name}\":1"))
        .collect();
    let source = format!("{{{}}}", members.join(","));
    let hits =
        vec![
            format!("{{\"_id\":\"1\",\"_score\":1.0,\"_source\":{source},\"fields\":{source}}}");
            500
        ];
    let answer = format!("{{\"hits\":{{\"hits\":[{}]}}}}", hits.join(","));
    for own in [json!(true), json!(["a"]), json!(["a*", "f1.x", "f2*"])] {
        let body = json!({"query": {"match": {"title": "shoe"}}, "_source": own, "size": 500,
            "ext": {"rerankd": {"fields": names("f", 1000)}}});
        let body = body.to_string();
        let call = search(&headers, None, body.as_bytes());
        let Plan::Rerank(planned) = plan(&call, &rules, &Fields, &Limits::default()).unwrap()
        else {
            panic!("it is reranked");
        };
        in_time(&own.to_string(), || {
            let found = planned.read(answer.as_bytes(), &Limits::default()).unwrap();
            found.page(None);
        });
    }
}

#[test]
fn many_searches_in_one_request_take_time_in_proportion() {
    let headers = json_headers("application/x-ndjson");
    let query = format!("rerankd_parameters={{\"p\":\"{}\"}}", "x".repeat(50_000));
    for item in [
        "{}\n{}\n",
        "{}\n{\"query\":{\"match\":{\"title\":\"shoe\"}}}\n",
    ] {
        let body = item.repeat(200_000);
        let call = search(&headers, Some(&query), body.as_bytes());
        let planned = in_time("_msearch", || {
            plan_multi(&call, &rules(), &Fields, &Limits::default())
        });
        let planned = planned.unwrap();
        assert_eq!(planned.items.len(), 200_000);
        let reranked = planned
            .items
            .iter()
            .filter(|item| matches!(item, ItemPlan::Rerank(_)));
        assert!(reranked.count() <= 32);
    }
}

#[test]
fn long_paths_of_fields_do_not_multiply_a_page() {
    let long = "x".repeat(250);
    let leaves: Vec<String> = (0..1000).map(|number| format!("\"{number}\":1")).collect();
    let source = format!("{{\"{long}\":{{{}}}}}", leaves.join(","));
    let hits = vec![format!("{{\"_score\":1.0,\"_source\":{source}}}"); 100];
    let body = format!(
        "{{\"query\":\"q\",\"response\":{{\"hits\":{{\"hits\":[{}]}}}}}}",
        hits.join(",")
    );
    let limits = Limits::default();
    let decoded = in_time("paths", || {
        decode(&rerankd_wire::hits::Hits, body.as_bytes(), &limits)
    });
    let bytes: usize = decoded.requests.iter().map(size).sum();
    assert!(
        bytes <= 16 * body.len(),
        "{} bytes became {bytes}",
        body.len()
    );
}

fn size(request: &RerankRequest) -> usize {
    let fields = request
        .documents
        .iter()
        .flat_map(|document| &document.fields);
    fields
        .map(|field| field.name.len() + field.value.size_bytes())
        .sum()
}

#[test]
fn depth_takes_time_in_proportion() {
    let limits = Limits::default();
    let headers = json_headers("application/json");
    let deep = |open: &str, close: &str| open.repeat(100_000) + "1" + &close.repeat(100_000);
    for value in [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        deep("{\"bool\":{\"must\":[", "]}}"),
        deep("[{\"query\":", "}]"),
    ] {
        let query = format!("{{\"query\":{value},\"size\":3}}");
        in_time("a search", || {
            let call = search(&headers, None, query.as_bytes());
            plan(&call, &rules(), &Fields, &limits).unwrap();
        });
        let documents =
            format!("{{\"query\":\"q\",\"documents\":[{{\"text\":\"t\",\"a\":{value}}}]}}");
        let answer = format!(
            "{{\"query\":\"q\",\"response\":{{\"hits\":{{\"hits\":[{{\"_source\":{{\"a\":{value}}}}}]}}}}}}"
        );
        for body in [documents, answer] {
            in_time("a body", || target::run(&[b"b0", body.as_bytes()].concat()));
        }
    }
}
