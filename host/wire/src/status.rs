//! The `Rerank-Status` header: what a ranking says about itself, in the manner of `Cache-Status`
//! (RFC 9211), a structured field (RFC 8941, a list).
//!
//! `rerankd;status=partial;reason=late;policy="semantic-blend";version="3f2a91c0";window=100;unscored=3;time=23.4`
//!
//! `status`, and `reason` where there is one, are tokens; `window` is how many documents were
//! reranked, `unscored` how many of them have no score, `time` milliseconds from the arrival of the
//! whole request to the ranking. `reason` of a `partial` ranking is the commonest of its unscored
//! documents; `unread` is how many of them the model cannot read. `truncated` is how many documents were
//! cut to fit the model, at least; `query-truncated` is there if the query was; `stand-in` names the model, if it
//! is for tests and its scores mean nothing. Counts of 0 are left out.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rerankd_core::ranking::UNREAD;
use rerankd_core::{
    ErrorKind, FailReason, Outcome, Ranking, RerankError, Reranked, SkipReason, Status,
};
use sfv::{Decimal, KeyRef, ListSerializer, ParameterSerializer, StringRef, TokenRef};

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

/// What became of one search.
#[derive(Debug, Clone, Copy)]
pub enum SearchStatus<'a> {
    /// It was ranked, or should have been.
    Ranked(&'a Reranked),
    /// The engine's own answer, for a reason that was known before any ranking.
    Skipped(SkipReason),
    /// The engine's own answer, since no ranking came about.
    Failed(FailReason),
    /// An error of the proxy's own.
    Error(ErrorKind),
}

/// What the mapping of the index had to do with a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MappingNote {
    /// Whether the engine did not say what it was asked, so that what was written counted:
    /// `mapping=unknown`.
    pub is_unknown: bool,
    /// The fields that were chosen for the policy to read: `fields="title,body"`, where the policy's order
    /// is the answer's. Names that are not visible ASCII are left out.
    pub fields: Vec<String>,
}

/// The header for the answer to a search.
pub fn search_status_header(search: SearchStatus<'_>, note: &MappingNote) -> HeaderValue {
    multi_of(&[(search, note)], false)
}

/// The header for the answer to an `_msearch`: `item=n` counts the searches from 0; `items` is there
/// where several in a row, from `item` on, share a member. `notes` are those of the searches, in their
/// order, as far as there are any. After 64 members there are no more, nor after 7 KiB; beyond 4 KiB
/// members have no `fields`.
pub fn multi_search_status_header(
    searches: &[SearchStatus<'_>],
    notes: &[MappingNote],
) -> HeaderValue {
    const NONE: &MappingNote = &MappingNote {
        is_unknown: false,
        fields: Vec::new(),
    };
    let notes = notes.iter().chain(std::iter::repeat(NONE));
    let all: Vec<_> = searches.iter().copied().zip(notes).collect();
    multi_of(&all, true)
}

/// Most members of a header.
const MOST_MEMBERS: usize = 64;

/// Most bytes of a header's members: clients and gateways take 8 KiB for all headers of an answer.
const MOST_BYTES: usize = 7 << 10;

/// Most bytes of a header that has the names of fields in it.
const MOST_BYTES_WITH_FIELDS: usize = 4 << 10;

/// Most bytes of the names of fields in a member.
const MOST_OF_NAMES: usize = 256;

/// Between two members.
const NEXT: &str = ", ";

/// `counts`: members say which searches they are of.
fn multi_of(searches: &[(SearchStatus<'_>, &MappingNote)], counts: bool) -> HeaderValue {
    let runs = searches.chunk_by(|(a, of_a), (b, of_b)| {
        let is_same = match (a, b) {
            (SearchStatus::Skipped(a), SearchStatus::Skipped(b)) => a == b,
            (SearchStatus::Failed(a), SearchStatus::Failed(b)) => a == b,
            _ => false,
        };
        is_same && of_a.is_unknown == of_b.is_unknown
    });
    let (mut first, mut bytes) = (0, 0);
    let mut members: Vec<String> = Vec::new();
    let mut fields: Vec<String> = Vec::new();
    for run in runs.take(MOST_MEMBERS) {
        let (search, note) = run[0];
        let mut list = ListSerializer::new();
        let mut member = add_search(&mut list, search);
        if counts {
            member = member.parameter(KeyRef::constant("item"), count(first));
        }
        if run.len() > 1 {
            member = member.parameter(KeyRef::constant("items"), count(run.len()));
        }
        if note.is_unknown {
            member.parameter(KeyRef::constant("mapping"), TokenRef::constant("unknown"));
        }
        let member = list.finish().unwrap_or_default();
        if bytes + member.len() + NEXT.len() > MOST_BYTES {
            break;
        }
        bytes += member.len() + NEXT.len();
        members.push(member);
        fields.push(match is_ordered(search) {
            true => fields_of(note),
            false => String::new(),
        });
        first += run.len();
    }
    for (member, fields) in members.iter_mut().zip(fields) {
        if bytes + fields.len() <= MOST_BYTES_WITH_FIELDS {
            bytes += fields.len();
            member.push_str(&fields);
        }
    }
    HeaderValue::try_from(members.join(NEXT)).expect("a structured field is visible ASCII")
}

/// Whether a policy has read the fields that were chosen for it.
fn is_ordered(search: SearchStatus<'_>) -> bool {
    let SearchStatus::Ranked(result) = search else {
        return false;
    };
    matches!(result.status, Status::Applied | Status::Partial)
}

/// The parameter `fields`, if there are any.
fn fields_of(note: &MappingNote) -> String {
    let mut names = String::new();
    let visible = |name: &&String| name.bytes().all(|byte| byte.is_ascii_graphic());
    for name in note.fields.iter().filter(visible) {
        if names.len() + name.len() < MOST_OF_NAMES {
            let comma = if names.is_empty() { "" } else { "," };
            names.push_str(comma);
            names.push_str(&name.replace('\\', "\\\\").replace('"', "\\\""));
        }
    }
    match names.is_empty() {
        true => names,
        false => format!(";fields=\"{names}\""),
    }
}

fn add_search<'l>(
    list: &'l mut ListSerializer<String>,
    search: SearchStatus<'_>,
) -> ParameterSerializer<&'l mut String> {
    let (status, reason) = match search {
        SearchStatus::Ranked(result) => return add_member(list, &Member::of(result)),
        SearchStatus::Skipped(reason) => ("skipped", reason.name().to_owned()),
        SearchStatus::Failed(reason) => ("failed", reason.name().to_owned()),
        SearchStatus::Error(kind) => ("error", kind.name().replace('_', "-")),
    };
    list.bare_item(TokenRef::constant("rerankd"))
        .parameter(KeyRef::constant("status"), token(status))
        .parameter(KeyRef::constant("reason"), token(&reason))
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
    unread: usize,
    truncated: usize,
    query_truncated: bool,
    stand_in: Option<&'a str>,
    time: Duration,
}

impl<'a> Member<'a> {
    fn of(result: &'a Reranked) -> Self {
        let ranking = &result.ranking;
        let reason = match result.status {
            Status::Partial => commonest_reason(ranking),
            status => status.reason(),
        };
        Self {
            status: result.status,
            reason,
            policy: &result.policy,
            version: &result.version,
            window: ranking.documents(),
            unscored: ranking.unscored(),
            // Where the query is what was not read, nobody knows of the documents.
            unread: match result.notes.query_unread {
                true => 0,
                false => ranking.unscored_for(UNREAD),
            },
            truncated: result.notes.truncated,
            query_truncated: result.query_truncated,
            stand_in: result.notes.stand_in.as_deref(),
            time: result.timings.total,
        }
    }
}

/// One member for all results that differ in numbers alone, so that a call with a thousand queries
/// has no header of a thousand members: windows and unscored documents are added up, the time is the
/// longest.
fn members(results: &[Reranked]) -> Vec<Member<'_>> {
    let mut members: Vec<Member<'_>> = Vec::new();
    for result in results {
        let member = Member::of(result);
        let like = |other: &&mut Member<'_>| {
            (other.status, other.reason, other.policy, other.version)
                == (member.status, member.reason, member.policy, member.version)
        };
        match members.iter_mut().find(like) {
            Some(other) => {
                other.window += member.window;
                other.unscored += member.unscored;
                other.unread += member.unread;
                other.truncated += member.truncated;
                other.query_truncated |= member.query_truncated;
                other.time = other.time.max(member.time);
            }
            None => members.push(member),
        }
    }
    members
}

fn add_member<'l>(
    list: &'l mut ListSerializer<String>,
    of: &Member<'_>,
) -> ParameterSerializer<&'l mut String> {
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
    for (key, number) in [("unread", of.unread), ("truncated", of.truncated)] {
        if number > 0 {
            member = member.parameter(KeyRef::constant(key), count(number));
        }
    }
    if of.query_truncated {
        member = member.parameter(KeyRef::constant("query-truncated"), true);
    }
    if let Some(model) = of.stand_in.and_then(|name| StringRef::from_str(name).ok()) {
        member = member.parameter(KeyRef::constant("stand-in"), model);
    }
    if let Ok(time) = Decimal::try_from(milliseconds(of.time)) {
        member = member.parameter(KeyRef::constant("time"), time);
    }
    member
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
