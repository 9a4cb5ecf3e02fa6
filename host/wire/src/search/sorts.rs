//! Whether a search has the order of `_score`, however it says so.

use super::body::Body;
use super::url::Params;
use crate::json::{Json, Kind};

/// What a search says of its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing.
    Default,
    /// `_score`, as searches have it that say nothing: hits then have no `sort` values that could
    /// contradict a new order, unless the search is over a point in time.
    Score,
    /// Anything else, or `_score` with a second key: each hit has its `sort` values.
    Other,
}

/// The order of a search. The engines put the parameter's keys behind those of the body.
pub(super) fn order(body: &Body<'_>, params: &Params<'_>) -> Order {
    let in_body = body.member("sort").map_or(Some(0), keys);
    let in_url = params.get("sort").map_or(Some(0), url_keys);
    match (in_body, in_url) {
        (Some(body), Some(url)) => match body + url {
            0 => Order::Default,
            1 => Order::Score,
            _ => Order::Other,
        },
        _ => Order::Other,
    }
}

/// How many keys there are, if each is `_score` in its usual direction.
fn keys(sort: Json<'_>) -> Option<usize> {
    match sort.kind() {
        Kind::String => (sort.string()? == "_score").then_some(1),
        Kind::Array => sort.items().map(keys).sum(),
        Kind::Object => sort
            .members()
            .map(|(key, order)| (key == "_score" && falls(order)).then_some(1))
            .sum(),
        _ => None,
    }
}

/// Whether the highest score comes first: `"desc"`, `{"order": "desc"}` or `{}`.
fn falls(order: Json<'_>) -> bool {
    let is_desc = |text: Json<'_>| {
        text.string()
            .is_some_and(|text| text.eq_ignore_ascii_case("desc"))
    };
    match order.kind() {
        Kind::Object => order
            .members()
            .all(|(key, value)| key == "order" && is_desc(value)),
        _ => is_desc(order),
    }
}

/// The same of the parameter: keys parted by commas, each with or without its direction. The engines
/// leave out a key whose direction they do not know.
fn url_keys(sort: &str) -> Option<usize> {
    if sort.is_empty() {
        return Some(0);
    }
    let one = |key: &str| match key.rsplit_once(':') {
        None if key == "_score" => Some(1),
        Some(("_score", "desc")) => Some(1),
        Some((_, direction)) if !matches!(direction, "asc" | "desc") => Some(0),
        _ => None,
    };
    sort.split(',').map(one).sum()
}
