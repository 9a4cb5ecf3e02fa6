//! The `Rerank-Status` header: what a ranking says about itself, in the manner of `Cache-Status`
//! (RFC 9211), a structured field (RFC 8941, a list).
//!
//! `rerankd;status=partial;reason=late;policy="semantic-blend";version="3f2a91c0";window=100;unscored=3;time=23.4`
//!
//! `status`, and `reason` where there is one, are tokens; `window` is how many documents were
//! reranked, `unscored` how many of them have no score, `time` milliseconds from the arrival of the
//! whole request to the ranking. `reason` of a `partial` ranking is the commonest of its unscored
//! documents.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rerankd_core::{Outcome, Ranking, RerankError, Reranked, SkipReason, Status};
use sfv::{Decimal, KeyRef, ListSerializer, StringRef, TokenRef};

/// The header's name.
pub static RERANK_STATUS: HeaderName = HeaderName::from_static("rerank-status");

/// The header for an answer made of `results`: a list with one member for each, where results that
/// differ in numbers alone share one. No results means that there were no documents: `skipped`.
pub fn status_header(results: &[Reranked]) -> HeaderValue {
    let mut list = ListSerializer::new();
    if results.is_empty() {
        let reason = SkipReason::NoDocuments;
        let status = Status::Skipped(reason);
        list.bare_item(TokenRef::constant("rerankd"))
            .parameter(KeyRef::constant("status"), token(status.name()))
            .parameter(KeyRef::constant("reason"), token(reason.name()));
    }
    for member in members(results) {
        add_member(&mut list, &member);
    }
    header_value(list)
}

/// The header for an answer that is an error.
pub fn error_status_header(error: &RerankError) -> HeaderValue {
    let mut list = ListSerializer::new();
    list.bare_item(TokenRef::constant("rerankd"))
        .parameter(KeyRef::constant("status"), TokenRef::constant("error"))
        .parameter(
            KeyRef::constant("reason"),
            token(&error.kind.name().replace('_', "-")),
        );
    header_value(list)
}

/// One member of the list.
struct Member<'a> {
    status: Status,
    reason: Option<&'a str>,
    policy: &'a str,
    version: &'a str,
    window: usize,
    unscored: usize,
    time: Duration,
}

/// One member for all results that differ in numbers alone, so that a call with a thousand queries
/// has no header of a thousand members: windows and unscored documents are added up, the time is the
/// longest.
fn members(results: &[Reranked]) -> Vec<Member<'_>> {
    let mut members: Vec<Member<'_>> = Vec::new();
    for result in results {
        let ranking = &result.ranking;
        let reason = match result.status {
            Status::Partial => commonest_reason(ranking),
            status => status.reason(),
        };
        let member = Member {
            status: result.status,
            reason,
            policy: &result.policy,
            version: &result.version,
            window: ranking.documents(),
            unscored: ranking.unscored(),
            time: result.timings.total,
        };
        let like = |other: &&mut Member<'_>| {
            (other.status, other.reason, other.policy, other.version)
                == (member.status, member.reason, member.policy, member.version)
        };
        match members.iter_mut().find(like) {
            Some(other) => {
                other.window += member.window;
                other.unscored += member.unscored;
                other.time = other.time.max(member.time);
            }
            None => members.push(member),
        }
    }
    members
}

fn add_member(list: &mut ListSerializer<String>, of: &Member<'_>) {
    let mut member = list
        .bare_item(TokenRef::constant("rerankd"))
        .parameter(KeyRef::constant("status"), token(of.status.name()));
    if let Some(reason) = of.reason {
        member = member.parameter(KeyRef::constant("reason"), token(reason));
    }
    for (key, text) in [("policy", of.policy), ("version", of.version)] {
        // Names are visible ASCII; one that is not is left out rather than misspelt.
        if let Ok(text) = StringRef::from_str(text) {
            member = member.parameter(KeyRef::constant(key), text);
        }
    }
    member = member.parameter(KeyRef::constant("window"), count(of.window));
    if of.status == Status::Partial {
        member = member.parameter(KeyRef::constant("unscored"), count(of.unscored));
    }
    if let Ok(time) = Decimal::try_from(milliseconds(of.time)) {
        member.parameter(KeyRef::constant("time"), time);
    }
}

/// Milliseconds with at most three decimals, as all answers print them.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Ties go to the word that comes first in the alphabet, so that the answer is always the same.
fn commonest_reason(ranking: &Ranking) -> Option<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for judgment in ranking.judgments() {
        if let Outcome::Unscored(reason) = &judgment.outcome {
            *counts.entry(reason).or_default() += 1;
        }
    }
    let first_of_most = counts.into_iter().rev().max_by_key(|&(_, count)| count);
    first_of_most.map(|(reason, _)| reason)
}

/// A policy's own reason need not be a token.
fn token(word: &str) -> &TokenRef {
    TokenRef::from_str(word).unwrap_or(TokenRef::constant("other"))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn header_value(list: ListSerializer<String>) -> HeaderValue {
    let text = list.finish().unwrap_or_default();
    HeaderValue::try_from(text).expect("a structured field is visible ASCII")
}
