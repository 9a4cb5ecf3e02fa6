//! Whether an answer is what a scenario expects, given what the engine alone answers.

use crate::Answer;
use crate::scenario::{Call, Expectation, Ranked, plain_body};
use crate::search_page::{self, Documents, Reranking};

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

/// What an answer is compared with.
pub struct Original<'a, W> {
    /// What the engine alone was asked.
    pub call: &'a Call,
    /// What it answered.
    pub own: &'a Answer,
    /// Asks it the same for a whole window.
    pub wide: W,
    /// All that is indexed.
    pub documents: &'a Documents,
}

impl<W: Fn(&Call) -> Answer> Original<'_, W> {
    /// Whether an answer is what is expected; what is said of it beside is [`Fate`]'s business.
    ///
    /// # Errors
    /// What differs.
    pub fn compare(&self, got: &Answer, expected: &Expectation) -> Result<(), String> {
        match expected {
            Expectation::Passed | Expectation::Skipped { .. } | Expectation::Failed { .. } => {
                same(got, self.own)
            }
            Expectation::PassedError => match self.own.status {
                200 => Err("the engine takes it".to_owned()),
                _ => same(got, self.own),
            },
            Expectation::Reranked(expected) => self.reranked(got, expected),
            Expectation::Permuted => self.permuted(got),
            Expectation::Error { status, mentions } => engine_shaped_error(got, *status, mentions),
            Expectation::Items { items } => self.items(got, items),
        }
    }

    /// Whether an answer is the engine's own one, reranked.
    ///
    /// # Errors
    /// What differs.
    pub fn reranked(&self, got: &Answer, expected: &Ranked) -> Result<(), String> {
        same_head(got, self.own, false)?;
        // What is left out of the window is made up for behind it.
        let window = expected.window + expected.from + expected.size;
        let wide = (self.wide)(&self.call.widened(window));
        self.page(&text(got), &text(self.own), &text(&wide), expected)
    }

    fn permuted(&self, got: &Answer) -> Result<(), String> {
        same_head(got, self.own, false)?;
        let wide = (self.wide)(&self.call.widened(100));
        search_page::permuted(&text(got), &text(self.own), &text(&wide))
    }

    fn page(&self, got: &str, own: &str, wide: &str, expected: &Ranked) -> Result<(), String> {
        let reranking = Reranking {
            query: expected.query.clone(),
            fields: expected.fields.clone(),
            window: expected.window,
            min_score: expected.min_score,
            keep_scores: expected.keep_scores,
        };
        let cut = (expected.from, expected.size);
        search_page::compare(got, own, wide, self.documents, &reranking, cut)
    }

    fn items(&self, got: &Answer, expected: &[Expectation]) -> Result<(), String> {
        same_head(got, self.own, false)?;
        let wide = (self.wide)(&self.call.widened_items(100));
        let (got, own, wide) = (text(got), text(self.own), text(&wide));
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
                Expectation::Reranked(expected) => self.page(got, own, wide, expected),
                _ if lasting(got) == lasting(own) => Ok(()),
                _ => Err(format!("got      {got}\n  expected {own}")),
            };
            found.map_err(|error| format!("item {index}: {error}"))?;
        }
        Ok(())
    }
}

/// What rerankd says of a search, in a header or in the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fate {
    /// `applied`, `skipped` ..
    pub status: String,
    /// Why it is so.
    pub reason: Option<String>,
    /// Who ranked.
    pub policy: Option<String>,
}

impl Fate {
    /// Reads one member of `Rerank-Status`.
    pub fn read(member: &str) -> Self {
        let parameter = |key: &str| {
            let mut parameters = member
                .split(';')
                .filter_map(|one| one.trim().split_once('='));
            let (_, value) = parameters.find(|(name, _)| *name == key)?;
            Some(value.trim_matches('"').to_owned())
        };
        Self {
            status: parameter("status").unwrap_or_default(),
            reason: parameter("reason"),
            policy: parameter("policy"),
        }
    }

    /// Whether it tells of what is expected of one search.
    ///
    /// # Errors
    /// What it lacks.
    pub fn tells(&self, expected: &Expectation) -> Result<(), String> {
        let is = |status: &str, reason: &str| {
            self.status == status && self.reason.as_deref() == Some(reason)
        };
        let ranked = |policy: &str| {
            ["applied", "partial"].contains(&&*self.status)
                && self.policy.as_deref() == Some(policy)
        };
        let told = match expected {
            Expectation::Skipped { reason } => is("skipped", reason),
            Expectation::Failed { reason } => is("failed", reason),
            Expectation::Error { .. } => self.status == "error",
            Expectation::Permuted => ranked("semantic-blend"),
            Expectation::Reranked(_) => ranked("nearest-length"),
            Expectation::Passed | Expectation::PassedError | Expectation::Items { .. } => true,
        };
        match told {
            true => Ok(()),
            false => Err(format!("said: {self:?}")),
        }
    }
}

/// Whether an answer is the engine's own, but for what differs from call to call.
///
/// # Errors
/// What differs.
pub fn same(got: &Answer, own: &Answer) -> Result<(), String> {
    same_head(got, own, true)?;
    let (got, own) = (lasting(&text(got)), lasting(&text(own)));
    match got == own {
        true => Ok(()),
        false => Err(format!("body:\n  got      {got}\n  expected {own}")),
    }
}

/// The body as text, not compressed.
///
/// # Panics
/// If it is not UTF-8.
pub fn text(answer: &Answer) -> String {
    String::from_utf8(plain_body(answer)).expect("answers are UTF-8")
}

fn engine_shaped_error(got: &Answer, status: u16, mentions: &str) -> Result<(), String> {
    let body = got.json();
    let reason = body["error"]["reason"].as_str().unwrap_or_default();
    let shaped = body["error"]["type"].is_string()
        && body["error"]["root_cause"][0]["reason"] == body["error"]["reason"]
        && body["status"] == status;
    match got.status == status && shaped && reason.contains(mentions) {
        true => Ok(()),
        false => Err(format!("status {}: {body}", got.status)),
    }
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
            lasting(&text(got))
        )),
    }
}
