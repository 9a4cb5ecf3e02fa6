//! What a search is, beside its query: its page, and what leaves its order to the engine.

use std::borrow::Cow;

use rerankd_core::SkipReason;

use super::plan::Asked;
use super::sorts;
use crate::json::{Json, Kind};

/// Hits on a page whose search does not say.
pub(super) const DEFAULT_SIZE: usize = 10;

/// `from` and `size`, where the URL is above the body.
pub(super) fn page_of(asked: &Asked<'_>) -> Result<(usize, usize), SkipReason> {
    if asked.params.repeats(&["from", "size"]) {
        return Err(SkipReason::Unparsable);
    }
    let number = |name: &str, default: usize| {
        let text = match asked.params.get(name) {
            Some(text) => Cow::Borrowed(text),
            None => match asked.body.member(name) {
                Some(json) => json.string().unwrap_or(Cow::Borrowed(json.text())),
                None => return Ok(default),
            },
        };
        text.parse().map_err(|_| SkipReason::Unparsable)
    };
    let (from, size) = (number("from", 0)?, number("size", DEFAULT_SIZE)?);
    if size == 0 {
        return Err(SkipReason::SizeZero);
    }
    Ok((from, size))
}

/// Sections of `ext` by which an engine reranks, or has a model read the hits in its own order.
const RERANKING_EXT: [&str; 4] = [
    "mmr",
    "search_configuration",
    "personalize_request_parameters",
    "generative_qa_parameters",
];

/// Rules out searches whose order is not ours to change; `keep_rescore`: that of a rescorer may be.
pub(super) fn check_kind(asked: &Asked<'_>, keep_rescore: bool) -> Result<(), SkipReason> {
    let has = |name: &str| asked.body.member(name).is_some();
    if asked.params.get("scroll").is_some() {
        return Err(SkipReason::Scroll);
    }
    if has("search_after") {
        return Err(SkipReason::SearchAfter);
    }
    if has("slice") {
        return Err(SkipReason::Slice);
    }
    match sorts::order(asked.body, asked.params) {
        sorts::Order::Default => {}
        // Over a point in time, Elasticsearch adds a key, and each hit has its `sort` values.
        sorts::Order::Score if !has("pit") => {}
        sorts::Order::Score | sorts::Order::Other => return Err(SkipReason::Sort),
    }
    if has("rescore") && !keep_rescore {
        return Err(SkipReason::Rescore);
    }
    if asked.body.has_ext("ubi") {
        return Err(SkipReason::Ubi);
    }
    if ends_early(asked) {
        return Err(SkipReason::SizeDependent);
    }
    if RERANKING_EXT.iter().any(|name| asked.body.has_ext(name)) {
        return Err(SkipReason::RerankedAlready);
    }
    if has("rank") || has("sub_searches") {
        return Err(SkipReason::RerankedAlready);
    }
    Ok(())
}

/// The least window of a search's rescorers: hits behind it have scores of another kind. The engines'
/// own default is 10.
pub(super) fn rescored(asked: &Asked<'_>) -> Result<Option<usize>, SkipReason> {
    const DEFAULT_WINDOW: usize = 10;
    let Some(rescore) = asked.body.member("rescore") else {
        return Ok(None);
    };
    let one = |rescorer: Json<'_>| match rescorer.member("window_size") {
        None => Ok(DEFAULT_WINDOW),
        Some(size) => {
            let text = size.string().unwrap_or(Cow::Borrowed(size.text()));
            text.parse().map_err(|_| SkipReason::Unparsable)
        }
    };
    let windows: Result<Vec<usize>, SkipReason> = match rescore.kind() {
        Kind::Array => rescore.items().map(one).collect(),
        _ => one(rescore).map(|window| vec![window]),
    };
    Ok(windows?.into_iter().min())
}

/// Whether the engine stops after so many hits while it passes over those that cannot be among the
/// first: which ones it has met then depends on how many are wanted.
fn ends_early(asked: &Asked<'_>) -> bool {
    let said = |name: &str| -> Option<String> {
        let in_url = asked.params.get(name).map(str::to_owned);
        in_url.or_else(|| Some(asked.body.member(name)?.text().trim_matches('"').to_owned()))
    };
    let stops = said("terminate_after").is_some_and(|after| after != "0");
    stops && said("track_total_hits").is_some_and(|counts| counts != "true")
}

pub(super) fn names_pipeline(asked: &Asked<'_>) -> bool {
    let in_url = asked.params.get("search_pipeline").map(Cow::Borrowed);
    let in_body = asked.body.member("search_pipeline");
    let name = in_url.or_else(|| Some(in_body?.string().unwrap_or(Cow::Borrowed(""))));
    name.is_some_and(|name| name != "_none")
}
