//! Two answers to one call.

use rerankd_tests::Answer;
use rerankd_tests::scenario::{Call, Expectation, Ranked, plain_body};
use rerankd_tests::search_page::{self, Reranking};

use crate::SCENARIOS;

/// Headers that say how an answer was sent or what it took, or that rerankd adds.
const OF_THE_WAY: [&str; 7] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "date",
    "rerank-status",
    "x-request-id",
    // OpenSearch's own account of a scroll: times.
    "task_resource_usage",
];

/// Whether an answer is the engine's own, but for what differs from call to call.
pub(crate) fn same(got: &Answer, own: &Answer) -> Result<(), String> {
    same_head(got, own, true)?;
    let (got, own) = (body(got), body(own));
    match got == own {
        true => Ok(()),
        false => Err(format!("body:\n  got      {got}\n  expected {own}")),
    }
}

/// Whether an answer is the engine's own one, reranked.
pub(crate) fn reranked(
    got: &Answer,
    own: &Answer,
    call: &Call,
    wide: impl Fn(&Call) -> Answer,
    expected: &Ranked,
) -> Result<(), String> {
    same_head(got, own, false)?;
    let wide = wide(&call.widened(width(expected)));
    page(&text(got), &text(own), &text(&wide), expected)
}

/// Whether an answer has the hits of the engine's window in another order.
pub(crate) fn permuted(
    got: &Answer,
    own: &Answer,
    call: &Call,
    wide: impl Fn(&Call) -> Answer,
) -> Result<(), String> {
    same_head(got, own, false)?;
    let wide = wide(&call.widened(100));
    search_page::permuted(&text(got), &text(own), &text(&wide))
}

/// Whether one page is the other one, reranked.
pub(crate) fn page(got: &str, own: &str, wide: &str, expected: &Ranked) -> Result<(), String> {
    let reranking = Reranking {
        query: expected.query.clone(),
        fields: expected.fields.clone(),
        window: expected.window,
        min_score: expected.min_score,
        keep_scores: expected.keep_scores,
    };
    let cut = (expected.from, expected.size);
    search_page::compare(got, own, wide, &SCENARIOS.documents, &reranking, cut)
}

/// Whether an answer to `_msearch` is the engine's own one with every item as expected.
pub(crate) fn items(
    got: &Answer,
    own: &Answer,
    wide: &Answer,
    expected: &[Expectation],
) -> Result<(), String> {
    same_head(got, own, false)?;
    let (got, own, wide) = (text(got), text(own), text(wide));
    let (got, own, wide) = (
        search_page::responses(&got),
        search_page::responses(&own),
        search_page::responses(&wide),
    );
    if got.len() != expected.len() {
        return Err(format!("{} items of {}", got.len(), expected.len()));
    }
    for (index, expected) in expected.iter().enumerate() {
        let (got, own, wide) = (got[index], own[index], wide[index]);
        let found = match expected {
            Expectation::Reranked(expected) => page(got, own, wide, expected),
            _ if lasting(got) == lasting(own) => Ok(()),
            _ => Err(format!("got      {got}\n  expected {own}")),
        };
        found.map_err(|error| format!("item {index}: {error}"))?;
    }
    Ok(())
}

/// How many hits the window's search asks for.
pub(crate) fn width(expected: &Ranked) -> usize {
    expected.window.max(expected.from + expected.size)
}

/// The body as text, not compressed.
pub(crate) fn text(answer: &Answer) -> String {
    String::from_utf8(plain_body(answer)).expect("answers are UTF-8")
}

fn body(answer: &Answer) -> String {
    lasting(&text(answer))
}

fn lasting(body: &str) -> String {
    search_page::lasting(body.as_bytes())
}

fn same_head(got: &Answer, own: &Answer, encoding: bool) -> Result<(), String> {
    let head = |answer: &Answer| {
        let lasts = |name: &str| {
            !OF_THE_WAY.contains(&name)
                && (encoding || name != "content-encoding" && name != "vary")
        };
        let mut headers: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| lasts(name))
            .cloned()
            .collect();
        headers.sort();
        (answer.status, headers)
    };
    let (head_of_got, head_of_own) = (head(got), head(own));
    match head_of_got == head_of_own {
        true => Ok(()),
        false => Err(format!(
            "head:\n  got      {head_of_got:?} {}\n  expected {head_of_own:?}",
            body(got)
        )),
    }
}
