//! Pages of a search engine, compared byte by byte: what must be as the engine alone would have sent it,
//! and what the policy `nearest-length` makes of a window of hits.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::answer::raw_object;

/// Members that differ between two answers to the same search.
const FLEETING: [&str; 4] = ["took", "profile", "_scroll_id", "pit_id"];

/// The relative difference of scores that were printed and read again.
const SCORE_TOLERANCE: f64 = 1e-6;

/// The documents that were indexed, by index and id.
pub type Documents = HashMap<(String, String), Value>;

/// Reads a body of `_bulk`.
pub fn documents(bulk: &str) -> Documents {
    let lines: Vec<&str> = bulk.lines().collect();
    let pair = |lines: &[&str]| {
        let action: Value = serde_json::from_str(lines[0]).expect("an action is JSON");
        let text = |key: &str| {
            action["index"][key]
                .as_str()
                .expect("it is named")
                .to_owned()
        };
        let source = serde_json::from_str(lines[1]).expect("a document is JSON");
        ((text("_index"), text("_id")), source)
    };
    lines.chunks(2).map(pair).collect()
}

/// How a page is reranked.
#[derive(Debug, Clone)]
pub struct Reranking {
    /// The query that the policy gets.
    pub query: String,
    /// The fields that it gets.
    pub fields: Vec<String>,
    /// How many hits it gets.
    pub window: usize,
    /// Scores below this are left out.
    pub min_score: Option<f64>,
    /// Whether the engine's scores stay beside the new ones.
    pub keep_scores: bool,
}

/// A hit of the expected page.
#[derive(Debug)]
struct Expected<'a> {
    raw: &'a str,
    own_score: f64,
    score: f64,
}

/// The bytes of an answer without what differs from call to call.
pub fn lasting(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if !text.trim_start().starts_with('{') {
        // YAML.
        let lasts = |line: &&str| !line.starts_with("took:");
        return text.lines().filter(lasts).collect::<Vec<_>>().join("\n");
    }
    let mut spans = fleeting(&text, &text);
    if let Some(responses) = raw_object(text.as_bytes()).get("responses") {
        for response in list(responses.get()) {
            spans.extend(fleeting(&text, response));
        }
    }
    masked(&text, spans)
}

/// The single answers in an answer to `_msearch`.
///
/// # Panics
/// If it is none.
pub fn responses(body: &str) -> Vec<&str> {
    list(raw_object(body.as_bytes())["responses"].get())
}

/// Whether `page` is what `own` (the engine's answer to the same search) becomes when `wide` (its answer to
/// the search for the whole window, from 0) is reranked and cut to `[from, from + size)`.
///
/// # Errors
/// What differs.
pub fn compare(
    page: &str,
    own: &str,
    wide: &str,
    documents: &Documents,
    reranking: &Reranking,
    (from, size): (usize, usize),
) -> Result<(), String> {
    let whole = reranked(wide, documents, reranking)?;
    let (got, expected) = (frame(page)?, frame(own)?);
    if got != expected {
        return Err(format!(
            "around the hits:\n  got      {got}\n  expected {expected}"
        ));
    }
    if let Some(max_score) = hits_member(page, "max_score") {
        let top = whole.first().map(|hit| hit.score);
        let printed: Option<f64> =
            serde_json::from_str(max_score).map_err(|error| error.to_string())?;
        if !same(printed, top) {
            return Err(format!("max_score is {max_score}, expected {top:?}"));
        }
    }
    let wanted: Vec<&Expected> = whole.iter().skip(from).take(size).collect();
    let hits = hits(page)?;
    let ids = |hits: &[&str]| hits.iter().map(|hit| id(hit)).collect::<Vec<_>>();
    let (got_ids, wanted_ids) = (
        ids(&hits),
        ids(&wanted.iter().map(|hit| hit.raw).collect::<Vec<_>>()),
    );
    if got_ids != wanted_ids {
        return Err(format!(
            "order:\n  got      {got_ids:?}\n  expected {wanted_ids:?}"
        ));
    }
    for (hit, wanted) in hits.iter().zip(wanted) {
        compare_hit(hit, wanted, reranking.keep_scores)?;
    }
    Ok(())
}

/// Whether `page` has the hits of `wide` in another order: none twice, and scores that never rise; as many
/// as `own`, the engine's own page, and everything around them as there.
///
/// # Errors
/// What differs.
pub fn permuted(page: &str, own: &str, wide: &str) -> Result<(), String> {
    let (got, expected) = (frame(page)?, frame(own)?);
    if got != expected {
        return Err(format!(
            "around the hits:\n  got      {got}\n  expected {expected}"
        ));
    }
    let (found, all) = (hits(page)?, hits(wide)?);
    if found.len() != hits(own)?.len() {
        return Err(format!("{} hits", found.len()));
    }
    let mut known: Vec<String> = all.iter().map(|hit| without_score(hit)).collect();
    for hit in &found {
        let at = known.iter().position(|known| *known == without_score(hit));
        known.swap_remove(
            at.ok_or_else(|| format!("nobody found this, or it is there twice: {hit}"))?,
        );
    }
    let scores: Vec<Option<f64>> = found.iter().map(|hit| score(hit)).collect();
    match scores.windows(2).all(|two| two[0] >= two[1]) && !scores.contains(&None) {
        true => Ok(()),
        false => Err(format!("scores: {scores:?}")),
    }
}

/// `_id` of every hit, top to bottom.
///
/// # Panics
/// If it is no page.
pub fn ids(page: &str) -> Vec<String> {
    let hits = hits(page).unwrap_or_else(|error| panic!("{error}"));
    hits.into_iter().map(id).collect()
}

fn compare_hit(hit: &str, wanted: &Expected, keep_scores: bool) -> Result<(), String> {
    let printed = score(hit);
    if !same(printed, Some(wanted.score)) {
        return Err(format!(
            "_score of {} is {printed:?}, expected {}",
            id(hit),
            wanted.score
        ));
    }
    let same_hit = match keep_scores {
        false => without_score(hit) == without_score(wanted.raw),
        true => {
            let (mut got, mut own) = (parsed(hit)?, parsed(wanted.raw)?);
            let first = got["fields"]["_first_stage_score"].take();
            if !same(first[0].as_f64(), Some(wanted.own_score)) {
                return Err(format!("_first_stage_score is {first}"));
            }
            got["_score"] = Value::Null;
            own["_score"] = Value::Null;
            if let Some(fields) = got["fields"].as_object_mut() {
                fields.remove("_first_stage_score");
                if fields.is_empty() {
                    got.as_object_mut()
                        .expect("a hit is an object")
                        .remove("fields");
                }
            }
            got == own
        }
    };
    match same_hit {
        true => Ok(()),
        false => Err(format!(
            "a hit:\n  got      {hit}\n  expected {}",
            wanted.raw
        )),
    }
}

/// The hits of `wide` in their new order: scored ones, those without text, those behind the window.
fn reranked<'a>(
    wide: &'a str,
    documents: &Documents,
    reranking: &Reranking,
) -> Result<Vec<Expected<'a>>, String> {
    let all = hits(wide)?;
    let (window, tail) = all.split_at(reranking.window.min(all.len()));
    let (mut scored, mut rest) = (Vec::new(), Vec::new());
    for hit in window {
        let own = score(hit).ok_or("a hit of the engine has no score")?;
        let length = length(hit, documents, &reranking.fields)?;
        let distance = length.abs_diff(reranking.query.chars().count());
        match length {
            0 => rest.push((*hit, own)),
            _ => scored.push(Expected {
                raw: hit,
                own_score: own,
                score: 1.0 / (1.0 + distance as f64),
            }),
        }
    }
    scored.sort_by(|one, other| other.score.total_cmp(&one.score));
    if let Some(least) = reranking.min_score {
        scored.retain(|hit| hit.score >= least);
    }
    let last = scored.last().map_or(f64::INFINITY, |hit| hit.score);
    for hit in tail {
        rest.push((hit, score(hit).ok_or("a hit of the engine has no score")?));
    }
    scored.extend(rest.into_iter().map(|(raw, own_score)| Expected {
        raw,
        own_score,
        score: match reranking.keep_scores {
            true => own_score,
            false => own_score.min(last),
        },
    }));
    Ok(scored)
}

/// Characters of a hit's document in these fields.
fn length(hit: &str, documents: &Documents, fields: &[String]) -> Result<usize, String> {
    let hit = parsed(hit)?;
    let text = |key: &str| hit[key].as_str().unwrap_or_default().to_owned();
    let key = (text("_index"), text("_id"));
    let source = documents
        .get(&key)
        .ok_or_else(|| format!("nobody indexed {key:?}"))?;
    let of = |value: &Value| match value {
        Value::String(text) => text.chars().count(),
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(|text| text.chars().count())
            .sum(),
        _ => 0,
    };
    Ok(fields.iter().map(|field| of(&source[field.as_str()])).sum())
}

/// An answer without its hits, its highest score, and what differs from call to call.
fn frame(page: &str) -> Result<String, String> {
    let mut spans = fleeting(page, page);
    spans.extend(hits_member(page, "hits").map(|value| place(page, value)));
    spans.extend(hits_member(page, "max_score").map(|value| place(page, value)));
    if spans.is_empty() {
        return Err(format!("no page: {page}"));
    }
    Ok(masked(page, spans))
}

fn hits(page: &str) -> Result<Vec<&str>, String> {
    let hits = hits_member(page, "hits").ok_or_else(|| format!("no page: {page}"))?;
    Ok(list(hits))
}

fn hits_member<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let hits: &RawValue = raw_object(page.as_bytes()).get("hits").copied()?;
    let member: &RawValue = raw_object(hits.get().as_bytes()).get(name).copied()?;
    Some(member.get())
}

fn list(json: &str) -> Vec<&str> {
    let values: Vec<&RawValue> = serde_json::from_str(json).expect("it is a list");
    values.into_iter().map(RawValue::get).collect()
}

fn parsed(hit: &str) -> Result<Value, String> {
    serde_json::from_str(hit).map_err(|error| format!("{error}: {hit}"))
}

fn id(hit: &str) -> String {
    raw_object(hit.as_bytes())
        .get("_id")
        .map_or_else(|| hit.to_owned(), |id| id.get().to_owned())
}

fn score(hit: &str) -> Option<f64> {
    serde_json::from_str(raw_object(hit.as_bytes()).get("_score")?.get()).ok()
}

fn without_score(hit: &str) -> String {
    let score = raw_object(hit.as_bytes()).get("_score").copied();
    masked(
        hit,
        score
            .map(|score| place(hit, score.get()))
            .into_iter()
            .collect(),
    )
}

fn same(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() <= SCORE_TOLERANCE * other.abs().max(1e-30),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Where the values of fleeting members of `object` stand in `text`, which holds it.
fn fleeting(text: &str, object: &str) -> Vec<Range<usize>> {
    let members = raw_object(object.as_bytes());
    FLEETING
        .iter()
        .filter_map(|name| members.get(*name))
        .map(|value| place(text, value.get()))
        .collect()
}

/// Where `part` stands in `text`, of which it is a slice.
fn place(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}

fn masked(text: &str, mut spans: Vec<Range<usize>>) -> String {
    spans.sort_by_key(|span| span.start);
    let mut masked = String::new();
    let mut end = 0;
    for span in spans {
        masked.push_str(&text[end..span.start]);
        masked.push('…');
        end = span.end;
    }
    masked + &text[end..]
}
