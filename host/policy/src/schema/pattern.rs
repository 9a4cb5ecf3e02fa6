//! Patterns of a schema: ECMA-262 as far as it can be matched without backtracking.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::compile::Refused;
use crate::chores::{Budget, Undone};
use crate::parameters::Counts;

/// Longest pattern, bytes.
const MAX_PATTERN_TEXT: usize = 1024;

/// All different patterns of a schema together, bytes.
const MAX_PATTERNS_TEXT: usize = 16 << 10;

/// What all patterns of a schema may take compiled, and the most that one may, bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// The same of a schema that was released before there was a bound.
const MAX_RECORDED_BYTES: usize = 4 << 20;
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// What the automata of all patterns of a schema may take, which matching makes and keeps, for each thread
/// and each way through a text; and the most of one pattern, bytes. One that would need more is matched
/// without.
const MAX_AUTOMATA_BYTES: usize = 4 << 20;
const MAX_AUTOMATON_BYTES: usize = 256 << 10;

/// The least of the limits under which a pattern is tried: what it is charged goes by the one that it
/// fits in.
const FIRST_TRY_BYTES: usize = 4 << 10;

/// From so many steps on a match looks at the clock first.
const LONG_MATCH_STEPS: u64 = 128;

/// All patterns of a schema by their text, each with what is wrong with it, if anything is.
pub(super) type Patterns = HashMap<String, Result<Arc<Pattern>, String>>;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(super) source: String,
    regex: Regex,
    /// Steps for each byte of a text and for its end: its own size in KiB, as a text may keep all of it
    /// alive.
    steps_for_a_byte: u64,
}

impl Pattern {
    /// Whether it is found in `text`.
    pub(super) fn matches(&self, text: &str, budget: &Budget) -> Result<bool, Undone> {
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let steps = bytes
            .saturating_add(1)
            .saturating_mul(self.steps_for_a_byte);
        budget.charge(steps)?;
        // Nothing stops a match that was begun.
        if steps >= LONG_MATCH_STEPS {
            budget.look()?;
        }
        // An error in the engine of patterns must not be one of the request.
        let found = catch_unwind(AssertUnwindSafe(|| self.regex.is_match(text)));
        Ok(found.unwrap_or(false))
    }
}

/// Compiles all patterns of a schema, each once. One that is wrong is so only where it is used.
pub(super) fn compile_all<'a>(
    sources: impl Iterator<Item = &'a str>,
    counts: Counts,
    budget: &Budget,
) -> Result<Patterns, Refused> {
    let mut all: Vec<&str> = sources.collect();
    all.sort_unstable();
    all.dedup();
    let text: usize = all.iter().map(|source| source.len()).sum();
    if text > MAX_PATTERNS_TEXT && counts == Counts::Bounded {
        let problem =
            format!("its patterns have {text} bytes; at most {MAX_PATTERNS_TEXT} are allowed");
        return Err(Ok(problem));
    }
    let automaton = (MAX_AUTOMATA_BYTES / all.len().max(1)).min(MAX_AUTOMATON_BYTES);
    let mut room = match counts {
        Counts::Bounded => MAX_COMPILED_BYTES,
        Counts::AsRecorded => MAX_RECORDED_BYTES,
    };
    let mut to_come = all.len();
    let mut compiled = HashMap::new();
    for source in all {
        let text = source.len();
        if text > MAX_PATTERN_TEXT && counts == Counts::Bounded {
            let problem = format!("has {text} bytes; at most {MAX_PATTERN_TEXT} are allowed");
            compiled.insert(source.to_owned(), Err(about(source, &problem)));
            continue;
        }
        let sizes = Sizes {
            share: (room / to_come).min(MAX_PATTERN_BYTES),
            most: room.min(MAX_PATTERN_BYTES),
            automaton,
        };
        to_come -= 1;
        let pattern = match compile(source, &sizes, budget) {
            Ok((pattern, bytes)) => {
                room -= bytes;
                Ok(Arc::new(pattern))
            }
            Err(Ok(problem)) => Err(problem),
            Err(Err(undone)) => return Err(Err(undone)),
        };
        compiled.insert(source.to_owned(), pattern);
    }
    Ok(compiled)
}

/// How much memory a pattern may take, bytes.
struct Sizes {
    /// Its part of what is left, if all that are to come get the same: tried first.
    share: usize,
    /// All that one may have of what is left.
    most: usize,
    /// What its automaton may take.
    automaton: usize,
}

fn about(source: &str, problem: &str) -> String {
    let shown: String = source.chars().take(80).collect();
    format!("the pattern `{shown}` {problem}")
}

/// The pattern, and the size that it fits in.
fn compile(source: &str, sizes: &Sizes, budget: &Budget) -> Result<(Pattern, usize), Refused> {
    let wrong = |problem: &str| Err(Ok(about(source, problem)));
    let most = sizes.most;
    let Ok(translated) = jsonschema_regex::to_rust_regex(source) else {
        return wrong("cannot be matched without backtracking, or is none");
    };
    let mut limit = FIRST_TRY_BYTES.min(sizes.share);
    loop {
        // About what compiling up to the limit takes.
        let kib = u64::try_from(limit >> 10).unwrap_or(u64::MAX);
        budget.charge(kib.max(1)).map_err(Err)?;
        budget.look().map_err(Err)?;
        let built = RegexBuilder::new(&translated)
            .size_limit(limit)
            .dfa_size_limit(sizes.automaton)
            .build();
        match built {
            Ok(regex) => {
                let pattern = Pattern {
                    source: source.to_owned(),
                    regex,
                    steps_for_a_byte: kib.max(1),
                };
                return Ok((pattern, limit));
            }
            Err(regex::Error::CompiledTooBig(_)) if limit < most => {
                let next = limit.saturating_mul(4);
                limit = match limit < sizes.share {
                    true => next.min(sizes.share),
                    false => next.min(most),
                };
            }
            Err(regex::Error::CompiledTooBig(_)) => {
                return wrong(&format!("takes more than {most} bytes compiled"));
            }
            Err(error) => {
                let text = error.to_string().replace('\n', " ");
                let text: String = text.chars().take(200).collect();
                return wrong(&format!("is none: {text}"));
            }
        }
    }
}
