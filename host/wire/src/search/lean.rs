//! Searches whose hits are expensive: highlights, scripts, the inner hits of a collapse. Each costs the engine
//! work for every hit of the window, of which the client sees a page (docs/decisions/0005). The window is
//! asked for without them, and the hits of the page come by a second search, which says by name which it
//! wants: in a `post_filter`, which changes no score, no highlight, and no group's inner hits.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::body::Body;
use super::plan::MAX_RESULT_WINDOW;
use super::url::Params;
use crate::answer;
use crate::engine::page::{Hit, Page};
use crate::json::{Json, Kind};

/// Whether a second search costs less than what it spares.
///
/// Not where the engine's answer to the second one could be another: what ends early, or is found by
/// retrievers of their own.
pub(super) fn pays(body: &Body<'_>, params: &Params<'_>) -> bool {
    let has = |name: &str| body.member(name).is_some();
    let collapse = body.member("collapse");
    let is_expensive = has("highlight")
        || has("script_fields")
        || collapse.is_some_and(|collapse| collapse.member("inner_hits").is_some());
    let is_steady = !["knn", "rescore", "retriever", "terminate_after", "timeout"]
        .iter()
        .any(|name| has(name) || params.get(name).is_some());
    is_expensive && is_steady
}

/// Which hits are wanted.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    /// The client's own filter behind the query.
    own: Option<String>,
    /// The field by which hits are grouped.
    group: Option<String>,
}

impl Filter {
    pub(super) fn of(body: &Body<'_>) -> Self {
        let collapse = body.member("collapse");
        let field = collapse.and_then(|collapse| collapse.member("field")?.string());
        Self {
            own: body.member("post_filter").map(|own| own.text().to_owned()),
            group: field.map(|field| field.into_owned()),
        }
    }

    /// The filter for these hits of a page, and how many hits may come of it. Hits that cannot be named
    /// do not come.
    pub(super) fn text(&self, page: &Page<'_>, hits: &[usize]) -> (String, usize) {
        let hits: Vec<&Hit<'_>> = hits.iter().map(|&hit| &page.hits[hit]).collect();
        let (wanted, most) = match &self.group {
            None => names(&hits),
            Some(field) => (groups(field, &hits), hits.len()),
        };
        let filter = match &self.own {
            None => wanted,
            Some(own) => format!(r#"{{"bool":{{"filter":[{own},{wanted}]}}}}"#),
        };
        (filter, most)
    }
}

/// Most indices that a filter names one by one; engines refuse queries of more than 1,024 clauses by
/// default (`indices.query.bool.max_clause_count`).
const MOST_INDICES: usize = 500;

/// A filter for these hits, and how many may come of it. Two indices may have a hit of one id each: an
/// id alone would bring both.
fn names(hits: &[&Hit<'_>]) -> (String, usize) {
    let mut by_index: BTreeMap<Cow<'_, str>, Vec<Cow<'_, str>>> = BTreeMap::new();
    for hit in hits {
        if let (Some(index), Some(id)) = (text_of(hit.index), text_of(hit.id)) {
            by_index.entry(index).or_default().push(id);
        }
    }
    let count: usize = by_index.values().map(Vec::len).sum();
    let with_ids = |ids: &[Cow<'_, str>]| format!(r#"{{"ids":{{"values":{}}}}}"#, shown(&ids));
    if by_index.len() > MOST_INDICES {
        let indices = by_index.len();
        let ids: Vec<Cow<'_, str>> = by_index.into_values().flatten().collect();
        return (with_ids(&ids), (count * indices).min(MAX_RESULT_WINDOW));
    }
    let of_index = |(index, ids): (&Cow<'_, str>, &Vec<Cow<'_, str>>)| {
        format!(
            r#"{{"bool":{{"filter":[{{"term":{{"_index":{}}}}},{}]}}}}"#,
            shown(index),
            with_ids(ids)
        )
    };
    let mut filters: Vec<String> = by_index.iter().map(of_index).collect();
    let filter = match filters.len() {
        1 => filters.remove(0),
        _ => format!(r#"{{"bool":{{"should":[{}]}}}}"#, filters.join(",")),
    };
    (filter, count)
}

fn text_of(part: Option<Json<'_>>) -> Option<Cow<'_, str>> {
    part?.string()
}

/// A filter for the groups of these hits. The engines show a hit's group among its fields, and nothing for
/// those that have none.
fn groups(field: &str, hits: &[&Hit<'_>]) -> String {
    let (mut values, mut has_others) = (Vec::new(), false);
    for hit in hits {
        let shown = hit.fields.and_then(|fields| fields.member(field));
        let Some(shown) = shown else {
            has_others = true;
            continue;
        };
        let mut items = shown.items();
        match (items.next(), items.next()) {
            (Some(value), None) if value.kind() == Kind::Null => has_others = true,
            (Some(value), None) => values.push(value.text()),
            _ => {}
        }
    }
    let name = shown(&field);
    let in_groups = format!(r#"{{"terms":{{{name}:[{}]}}}}"#, values.join(","));
    if !has_others {
        return in_groups;
    }
    let others = format!(r#"{{"bool":{{"must_not":{{"exists":{{"field":{name}}}}}}}}}"#);
    format!(r#"{{"bool":{{"should":[{in_groups},{others}]}}}}"#)
}

fn shown(value: &impl serde::Serialize) -> String {
    String::from_utf8_lossy(&answer::to_json(value)).into_owned()
}
