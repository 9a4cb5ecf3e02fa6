//! Vector searches that do not say how many neighbours they want: Elasticsearch then takes as many as
//! the search has hits on a page. A widened search would find more, and count more, so the client's own
//! size is written into it.

use super::body::Body;
use super::kinds::DEFAULT_SIZE;
use crate::json::{Edit, Json, Kind};

/// Queries that are nested deeper are not looked into; the engines stop at 30.
const MAX_DEPTH: usize = 40;

/// What keeps a widened search to the neighbours that the client's own one finds.
///
/// `size` is the size of the client's page. The section `knn` of the body takes the body's own size, also
/// where the URL has another: it is read before that.
pub(super) fn pins(body: &Body<'_>, size: usize) -> Vec<Edit> {
    let mut pins = Vec::new();
    let mentions = |whole: Json<'_>| {
        let text = whole.text();
        text.contains("knn") || text.contains("\\u")
    };
    if !body.whole().is_some_and(mentions) {
        return pins;
    }
    if let Some(section) = body.member("knn") {
        let own = body.member("size").and_then(|size| {
            let text = size.string()?;
            text.parse().ok()
        });
        let own = own.or_else(|| body.member("size")?.text().parse().ok());
        let searches: Vec<Json<'_>> = match section.kind() {
            Kind::Array => section.items().collect(),
            _ => vec![section],
        };
        for search in searches {
            if search.kind() == Kind::Object && search.member("k").is_none() {
                pins.push(pin(search, own.unwrap_or(DEFAULT_SIZE)));
            }
            if let Some(filter) = search.member("filter") {
                of_queries(filter, size, &mut pins, 0);
            }
        }
    }
    for name in ["query", "post_filter", "rescore", "aggs", "aggregations"] {
        if let Some(part) = body.member(name) {
            of_queries(part, size, &mut pins, 0);
        }
    }
    // A fusion gives each of its retrievers a size of its own.
    if let Some(standard) = body
        .member("retriever")
        .and_then(|retriever| retriever.member("standard"))
    {
        of_queries(standard, size, &mut pins, 0);
    }
    pins
}

fn of_queries(json: Json<'_>, size: usize, pins: &mut Vec<Edit>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match json.kind() {
        Kind::Array => {
            for item in json.items() {
                of_queries(item, size, pins, depth + 1);
            }
        }
        Kind::Object => {
            for (key, value) in json.members() {
                if key == "knn" && is_without_k(value) {
                    let candidates = value.member("num_candidates");
                    let candidates = candidates.and_then(|most| most.text().parse().ok());
                    pins.push(pin(value, candidates.unwrap_or(size).min(size)));
                }
                if !matches!(&*key, "script" | "params") {
                    of_queries(value, size, pins, depth + 1);
                }
            }
        }
        _ => {}
    }
}

/// Whether this is Elasticsearch's query for neighbours, without their number. OpenSearch's has the
/// field's name as its key, and always says how many.
fn is_without_k(query: Json<'_>) -> bool {
    let has = |name| query.member(name).is_some();
    query.kind() == Kind::Object
        && has("field")
        && (has("query_vector") || has("query_vector_builder"))
        && !has("k")
}

fn pin(search: Json<'_>, neighbours: usize) -> Edit {
    let behind_brace = search.span().start + 1;
    let comma = if search.members().next().is_some() {
        ","
    } else {
        ""
    };
    (
        behind_brace..behind_brace,
        format!(r#""k":{neighbours}{comma}"#),
    )
}
