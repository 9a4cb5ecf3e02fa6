//! What holds for any input.

use proptest::collection::vec;
use proptest::prelude::*;
use rerankd_core::{Judgment, Outcome};
use rerankd_wire::hits::Hits;
use rerankd_wire::native::Native;
use rerankd_wire::{Call, PROTOCOLS, Protocol};

use crate::support::{answer, body, decode, fixture, limits, path, request, reranked, scored};

/// Decodes with every protocol, and if it can be, makes an answer too.
fn use_everywhere(body: &[u8]) {
    for protocol in PROTOCOLS {
        let call = Call {
            path: path(*protocol),
            target: "p",
            body,
            limits: limits(),
            request_id: "1",
            unix_seconds: 0,
        };
        let Ok(decoded) = protocol.decode(&call) else {
            continue;
        };
        let results: Vec<_> = decoded
            .requests
            .iter()
            .map(|request| {
                let documents = request.documents.len();
                let scores = (0..documents).map(|index| index as f64 / documents as f64);
                reranked(scores.map(scored).collect())
            })
            .collect();
        let answer = decoded.reply.encode(&results).unwrap();
        serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).unwrap();
    }
}

fn valid_bodies() -> Vec<Vec<u8>> {
    [
        ("native", "products.request.json"),
        ("native", "texts.request.json"),
        ("hits", "odd.request.json"),
        ("metarank", "cross.request.json"),
        ("superset", "cohere-v1.request.json"),
        ("superset", "jina.request.json"),
        ("tei", "litellm-huggingface.request.json"),
        ("tei-predict", "batch.request.json"),
        ("voyage", "return-documents.request.json"),
        ("xinference", "client.request.json"),
        ("vllm", "raw.request.json"),
        ("vllm-score", "many-to-many.request.json"),
        ("infinity", "litellm.request.json"),
        ("nvidia", "elasticsearch.request.json"),
        ("bedrock", "ml-commons.request.json"),
        ("mixedbread", "dify.request.json"),
        ("dashscope", "sdk.request.json"),
        ("ollama", "dify.request.json"),
    ]
    .map(|(protocol, file)| fixture(protocol, file))
    .into()
}

fn judgment() -> impl Strategy<Value = Judgment> {
    prop_oneof![
        4 => prop_oneof![Just(0.5), Just(-3.0), -20.0..20.0].prop_map(scored),
        1 => prop_oneof![Just("empty"), Just("late")].prop_map(Judgment::unscored),
        1 => Just(Judgment { outcome: Outcome::Filtered, truncated: false, explanation: None }),
    ]
}

/// A hit as the text before its score, its score, and the text behind; and the gap before it.
#[derive(Debug, Clone)]
struct Hit {
    gap: &'static str,
    before: String,
    score: Option<f64>,
    behind: &'static str,
    judgment: Judgment,
}

fn hit() -> impl Strategy<Value = Hit> {
    let gap = prop_oneof![Just(","), Just(" ,\n  "), Just(",\t"), Just("\r\n, ")];
    let behind = prop_oneof![
        Just("}"),
        Just(r#" , "_source":{"a":18446744073709551615,"a":1.10, "s":"\ud83d\u0022}]"}}"#),
        Just(r#","_source":{"_score":7,"hits":{"hits":[]}},"fields":{"f":[1e999]} }"#),
        Just(r#","_ignored":[],"sort":[1.50,"x"],"inner_hits":{"hits":{"max_score":3}}}"#),
    ];
    let score = proptest::option::weighted(0.9, prop_oneof![Just(1.5), 0.0..30.0]);
    let before = prop_oneof![Just("{"), Just("{ "), Just(r#"{"_index":"i","_score":3, "#)];
    (gap, before, "[a-z\\PC]{0,6}", score, behind, judgment()).prop_map(
        |(gap, before, id, score, behind, judgment)| {
            let id = serde_json::to_string(&id).unwrap();
            let before = format!("{before}\"_id\":{id} , \"_score\" : ");
            Hit {
                gap,
                before,
                score,
                behind,
                judgment,
            }
        },
    )
}

fn number(score: Option<f64>) -> String {
    serde_json::to_string(&score).unwrap()
}

fn page(max_score: &str, hits: &[(Hit, String)], gaps: &[Hit]) -> String {
    let mut list = String::new();
    for (slot, (hit, score)) in hits.iter().enumerate() {
        list.push_str(if slot > 0 { gaps[slot].gap } else { "" });
        list.push_str(&format!("{}{score}{}", hit.before, hit.behind));
    }
    let list = match hits {
        [] => " ".to_owned(),
        _ => format!(" {list} "),
    };
    format!(r#"{{"hits" :{{ "hits":[{list}],"total":9, "max_score" : {max_score} }}, "took":1}}"#)
}

/// The rules once more, the slow way: what the answer must be, byte for byte.
fn expected_page(hits: &[Hit], window: usize, min_score: Option<f64>) -> String {
    let score_of = |hit: &Hit| match hit.judgment.outcome {
        Outcome::Scored(score) => Some(score),
        _ => None,
    };
    let (head, tail) = hits.split_at(window);
    let mut scored: Vec<(f64, &Hit)> = head
        .iter()
        .filter_map(|hit| Some((score_of(hit)?, hit)))
        .collect();
    scored.retain(|(score, _)| min_score.is_none_or(|min_score| *score >= min_score));
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let last = scored.last().map_or(f64::INFINITY, |(score, _)| *score);
    let unscored = head
        .iter()
        .filter(|hit| matches!(hit.judgment.outcome, Outcome::Unscored(_)));
    let mut rows: Vec<(Hit, String)> = scored
        .iter()
        .map(|(score, hit)| ((*hit).clone(), number(Some(*score))))
        .collect();
    for hit in unscored.chain(tail) {
        rows.push((hit.clone(), number(hit.score.map(|own| own.min(last)))));
    }
    let max_score = rows
        .first()
        .map_or("null".to_owned(), |(_, score)| score.clone());
    page(&max_score, &rows, hits)
}

proptest! {
    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        use_everywhere(&bytes);
    }

    #[test]
    fn decoding_a_damaged_body_never_panics(
        which in 0..18_usize,
        damage in vec((any::<prop::sample::Index>(), 0..4_usize, any::<u8>()), 1..6),
    ) {
        let mut body = valid_bodies().swap_remove(which);
        for (at, length, byte) in damage {
            let at = at.index(body.len());
            let end = (at + length).min(body.len());
            let structure = b"{}[]\",:\\0-ntu e"[usize::from(byte) % 15];
            body.splice(at..end, [if byte < 200 { structure } else { byte }]);
        }
        use_everywhere(&body);
    }

    #[test]
    fn a_reranked_page_is_its_own_bytes_in_another_order(
        hits in vec(hit(), 1..8),
        window in 1..9_usize,
        min_score in proptest::option::of(-5.0..5.0),
    ) {
        let rows: Vec<(Hit, String)> =
            hits.iter().map(|hit| (hit.clone(), number(hit.score))).collect();
        let min = min_score.map(|score: f64| format!(r#""min_score":{score:?},"#));
        let request = format!(
            r#"{{"query":"q","window":{window},{}"response":{}}}"#,
            min.unwrap_or_default(),
            page("30.5", &rows, &hits),
        );
        let window = window.min(hits.len());
        let decoded = decode(&Hits, request.as_bytes()).unwrap();
        prop_assert_eq!(decoded.requests[0].documents.len(), window);
        let judgments = hits[..window].iter().map(|hit| hit.judgment.clone()).collect();
        let answer = answer(decoded, &[reranked(judgments)]);
        prop_assert_eq!(body(&answer), expected_page(&hits, window, min_score));
    }

    #[test]
    fn any_text_arrives_as_it_was(text in "\\PC{0,20}[\\x00-\\x7f]{0,20}", ascii in any::<bool>()) {
        let mut json = serde_json::to_string(&text).unwrap();
        if ascii {
            let mut units = [0; 2];
            json = json
                .chars()
                .flat_map(|c| match c.is_ascii() {
                    true => vec![c.to_string()],
                    false => c.encode_utf16(&mut units).iter().map(|u| format!("\\u{u:04X}")).collect(),
                })
                .collect();
        }
        let body = format!(r#"{{"query":"q","documents":[ {json} ]}}"#);
        let request = request(&Native as &dyn Protocol, body.as_bytes());
        let wanted = rerankd_core::Document::from_text(text);
        prop_assert_eq!(&request.documents, &[wanted]);
    }
}
