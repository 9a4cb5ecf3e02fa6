//! An engine as far as these tests need one: it answers a search body with the hits, sections and
//! layout that the real ones print.

use serde_json::{Map, Value, json};

use super::{json as parsed, text};

/// How many hits there are for any query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engine {
    pub(crate) hits: usize,
    /// Whether it prints as for `pretty`.
    pub(crate) pretty: bool,
}

impl Engine {
    /// The answer to a search with this body.
    pub(crate) fn answer(self, body: &[u8]) -> Vec<u8> {
        let body = match text(body).trim() {
            "" => json!({}),
            _ => parsed(body),
        };
        let number = |name: &str, default: u64| match &body[name] {
            Value::String(text) => text.parse().unwrap(),
            value => value.as_u64().unwrap_or(default),
        };
        let from = usize::try_from(number("from", 0)).unwrap();
        let end = from + usize::try_from(number("size", 10)).unwrap();
        // What a filter for hits by name says of the one index.
        let only = body["post_filter"]["bool"]["filter"][1]["ids"]["values"].as_array();
        let is_wanted =
            |rank: &usize| only.is_none_or(|only| only.contains(&json!(rank.to_string())));
        let hits: Vec<Value> = (0..self.hits)
            .filter(is_wanted)
            .skip(from)
            .take(end - from)
            .map(|rank| Value::Object(hit(rank, &body)))
            .collect();
        let top = (self.hits > 0).then(|| score(0));
        let answer = json!({
            "took": 7,
            "timed_out": false,
            "_shards": {"total": 2, "successful": 2, "skipped": 0, "failed": 0},
            "hits": {
                "total": {"value": self.hits, "relation": "eq"},
                "max_score": top,
                "hits": hits,
            },
            "aggregations": {"sterms#a": {"hits": {"hits": [{"_score": 1.0}]}}},
        });
        let printed = match self.pretty {
            true => serde_json::to_string_pretty(&answer)
                .unwrap()
                .replace("[]", "[ ]"),
            false => answer.to_string(),
        };
        printed.into_bytes()
    }
}

/// Falls by rank, with ties.
pub(crate) fn score(rank: usize) -> f64 {
    30.0 - 0.25 * (rank / 2) as f64
}

/// The hit at this rank, from 0.
pub(crate) fn hit(rank: usize, body: &Value) -> Map<String, Value> {
    let source = json!({
        "title": format!("Clog {rank} \u{1f45f}"),
        "brand": {"name": "Crocs", "city": "Broomfield"},
        "price": 9_007_199_254_740_993_u64 + rank as u64,
    });
    let fields = json!({
        "title": [format!("Clog {rank} \u{1f45f}")],
        "brand.name": ["Crocs"],
        "price": [9_007_199_254_740_993_u64 + rank as u64],
    });
    let names = |part: &Value| -> Vec<String> {
        let items = part.as_array().into_iter().flatten();
        items
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    let mut hit = Map::new();
    hit.insert("_index".into(), json!("products"));
    hit.insert("_id".into(), json!(rank.to_string()));
    hit.insert("_score".into(), json!(score(rank)));
    let (includes, excludes) = match &body["_source"] {
        Value::Object(part) => (
            names(&json!(part.get("includes"))),
            names(&json!(part.get("excludes"))),
        ),
        part => (names(part), Vec::new()),
    };
    // Whole members are enough here.
    let member =
        |names: &[String], key: &str| names.iter().any(|name| name.split('.').next() == Some(key));
    if body["_source"] != json!(false) {
        let mut part = source.as_object().unwrap().clone();
        part.retain(|key, _| {
            (includes.is_empty() || member(&includes, key)) && !member(&excludes, key)
        });
        hit.insert("_source".into(), Value::Object(part));
    }
    let wanted = names(&body["fields"]);
    if !wanted.is_empty() {
        hit.insert("ignored_field_values".into(), json!({"price": ["x"]}));
        let section: Map<String, Value> = wanted
            .into_iter()
            .map(|name| (name.clone(), fields[&name].clone()))
            .collect();
        hit.insert("fields".into(), Value::Object(section));
    }
    hit.insert("highlight".into(), json!({"title": ["<em>Clog</em>"]}));
    hit
}
