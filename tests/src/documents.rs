//! Texts to rank: the products that a real Elasticsearch found, as they were recorded.

use serde_json::{Value, json};

use crate::require;

/// A recorded response of Elasticsearch to a `_search`, by its name in `fixtures/elasticsearch`.
pub fn recorded(name: &str) -> String {
    let path = require::root().join(format!("tests/fixtures/elasticsearch/{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The query that a recorded response answered.
pub fn recorded_query(name: &str) -> String {
    let about: Value =
        serde_json::from_str(&recorded(&format!("{name}.about"))).expect("it is JSON");
    about["query"].as_str().expect("it has a query").to_owned()
}

/// The 20 products that were found for "smart watch": `(id, score, fields)`.
pub fn products() -> Vec<(String, f64, Value)> {
    let response: Value =
        serde_json::from_str(&recorded("chorus-smart-watch")).expect("it is JSON");
    let hits = response["hits"]["hits"].as_array().expect("it has hits");
    let product = |hit: &Value| {
        (
            hit["_id"].as_str().expect("a hit has an id").to_owned(),
            hit["_score"].as_f64().expect("a hit has a score"),
            hit["_source"].clone(),
        )
    };
    hits.iter().map(product).collect()
}

/// Documents of the native form, without a first stage: `count` of the products, again and again.
/// Those of later rounds differ by their number, so that no two are the same.
pub fn texts(count: usize) -> Vec<Value> {
    let products = products();
    let text = |index: usize| {
        let fields = &products[index % products.len()].2;
        let title = fields["title"].as_str().expect("a product has a title");
        let text = fields["text"].as_str().expect("a product has a text");
        let text: String = text.chars().take(200).collect();
        match index / products.len() {
            0 => json!({"fields": {"title": title, "text": text}}),
            round => json!({"fields": {"title": format!("{title} {round}"), "text": text}}),
        }
    };
    (0..count).map(text).collect()
}

/// Documents of the native form, each longer than any model's window: the most work that there is.
pub fn long_texts(count: usize) -> Vec<Value> {
    let products = products();
    let all: Vec<String> = products
        .iter()
        .map(|product| product.2["text"].to_string())
        .collect();
    let text: String = all.join(" ").chars().take(6000).collect();
    (0..count)
        .map(|number| json!(format!("{number} {text}")))
        .collect()
}

/// [`texts`] with a first stage: each has a score, the first has the highest.
pub fn scored_texts(count: usize) -> Vec<Value> {
    let mut documents = texts(count);
    for (index, document) in documents.iter_mut().enumerate() {
        document["score"] = json!(100.0 - index as f64 / 8.0);
    }
    documents
}
