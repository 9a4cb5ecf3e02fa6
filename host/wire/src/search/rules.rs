//! What the operator says of indices: which searches are reranked, by which policies, within what.

use std::time::Duration;

use rerankd_core::{OnFailure, PolicySelector, SkipReason};

use super::mapping::Mapping;
use super::reading::FieldChoice;
use super::{Seen, Target};

/// What holds for the indices that a pattern names.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexRule {
    /// An index's name, where `*` stands for any characters. A `*` in front matches no name that
    /// starts with a dot: such indices are the engine's own.
    pub pattern: String,
    /// Whether searches are reranked that do not say so themselves.
    pub enabled: bool,
    /// The policies that a search may name; the first is the default.
    pub policies: Vec<PolicySelector>,
    /// The fields that the policy reads, in place of its own.
    pub fields: Option<Vec<String>>,
    /// How many of the first hits are reranked.
    pub window: usize,
    /// The largest window that a search may ask for.
    pub max_window: usize,
    /// Where the text of the query stands in the body (`query.bool.must[0].match.title.query`).
    pub query_path: Option<String>,
    /// Scored hits below this are left out.
    pub min_score: Option<f64>,
    /// Whether hits that follow the scored ones keep their own scores.
    pub keep_scores: bool,
    /// The deadline of reranking.
    pub timeout: Option<Duration>,
    /// What to answer when reranking fails.
    pub on_failure: OnFailure,
    /// Parameters for the policy: the text of a JSON object.
    pub parameters: Option<String>,
    /// Whether searches that name a search pipeline are reranked too: such a pipeline may already
    /// rerank.
    pub search_pipelines: bool,
    /// Whether searches that the engine rescores are reranked too: the rescored order is their first
    /// stage.
    pub keep_rescore: bool,
}

impl IndexRule {
    /// A rule for `pattern` with `policy` and everything else as it is by default.
    pub fn new(pattern: impl Into<String>, policy: PolicySelector) -> Self {
        Self {
            pattern: pattern.into(),
            enabled: true,
            policies: vec![policy],
            fields: None,
            window: 100,
            max_window: 1000,
            query_path: None,
            min_score: None,
            keep_scores: false,
            timeout: None,
            on_failure: OnFailure::FirstStage,
            parameters: None,
            search_pipelines: false,
            keep_rescore: false,
        }
    }

    fn holds_for(&self, name: &str) -> bool {
        let hidden = name.starts_with('.') && self.pattern.starts_with('*');
        !hidden && matches(&self.pattern, name)
    }
}

/// All rules; the first that matches counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// In the order of the configuration.
    pub indices: Vec<IndexRule>,
    /// For indices that match none. Its pattern counts too.
    pub default_rule: Option<IndexRule>,
}

/// What the server knows: of policies, and of what the engine has.
pub trait Policies {
    /// The fields that the policy reads; `None` where there is no such policy.
    fn fields(&self, selector: &PolicySelector) -> Option<Vec<String>>;

    /// How the fields that the policy reads may be chosen for it; `None` where they may not.
    fn choice(&self, _selector: &PolicySelector) -> Option<FieldChoice> {
        None
    }

    /// The mapping of what a search is asked of.
    fn mapping(&self, _target: &Target) -> Seen {
        Seen::Off
    }

    /// Notes that what becomes of a search hangs on a mapping that was [`Seen::Cold`].
    fn want(&self, _target: &Target) {}

    /// Whether the mapping was not known when the first page of a search was planned, of which `search`
    /// is the same for all pages: then its later pages are planned without, too.
    fn first_page_was_unknown(&self, _search: &dyn Fn() -> Vec<u8>) -> bool {
        false
    }

    /// Notes whether the plan for a first page hangs on a mapping that is not known.
    fn note_first_page(&self, _search: &dyn Fn() -> Vec<u8>, _is_unknown: bool) {}

    /// Whether there is such a policy: one that is expected may not have been released yet. It is taken
    /// for granted where nobody knows better.
    fn has(&self, selector: &PolicySelector) -> bool {
        let _ = selector;
        true
    }

    /// Whether the policy may leave hits out.
    fn filters(&self, _selector: &PolicySelector) -> bool {
        false
    }
}

impl Rules {
    /// The rule for the index expression of a search: `None` is all indices. Where it names several,
    /// one rule must hold for all of them.
    pub(super) fn of(&self, index: Option<&str>) -> Option<&IndexRule> {
        let mut names = index.unwrap_or("_all").split(',').filter(|name| {
            // An exclusion from what the names before it say.
            !name.is_empty() && !name.starts_with('-')
        });
        let rule = self.of_name(names.next()?)?;
        names
            .all(|name| {
                self.of_name(name)
                    .is_some_and(|other| std::ptr::eq(other, rule))
            })
            .then_some(rule)
    }

    /// The rule of what a search is asked of: that of its indices, by all their names, where the engine
    /// has said which these are; else by what was written.
    ///
    /// # Errors
    /// `NoRule`, and `RulesDiffer` where the indices have not one and the same.
    pub(super) fn of_target(
        &self,
        index: Option<&str>,
        mapping: Option<&Mapping>,
    ) -> Result<&IndexRule, SkipReason> {
        match mapping.and_then(Mapping::rule) {
            Some(place) => self.all().nth(place?).ok_or(SkipReason::NoRule),
            None => self.of(index).ok_or(SkipReason::NoRule),
        }
    }

    /// The place of the first rule that holds for something of any of these names.
    pub(super) fn place<'n>(&self, names: impl Iterator<Item = &'n str>) -> Option<usize> {
        let names: Vec<&str> = names.collect();
        let holds = |rule: &IndexRule| names.iter().any(|name| rule.holds_for(name));
        self.all().position(holds)
    }

    fn of_name(&self, name: &str) -> Option<&IndexRule> {
        self.all().find(|rule| rule.holds_for(name))
    }

    fn all(&self) -> impl Iterator<Item = &IndexRule> {
        self.indices.iter().chain(&self.default_rule)
    }
}

/// A pattern that is held against many names, where `*` stands for any characters. However long it is,
/// a name costs no more than its own length.
pub(super) struct Pattern {
    /// Without two `*` side by side.
    text: String,
    /// How long a name must be at least, bytes.
    least: usize,
}

impl Pattern {
    pub(super) fn new(pattern: &str) -> Self {
        let mut text = String::with_capacity(pattern.len());
        for character in pattern.chars() {
            if character != '*' || !text.ends_with('*') {
                text.push(character);
            }
        }
        let least = text.len() - text.matches('*').count();
        Self { text, least }
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        name.len() >= self.least && matches(&self.text, name)
    }
}

/// Whether `text` is `pattern`, where `*` stands for any characters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = rest.split('*');
    let last = parts.next_back().unwrap_or_default();
    for part in parts {
        // The earliest place leaves the most for what follows.
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whatever_runs_of_stars_it_has() {
        let cases = [
            ("title", "title", true),
            ("title", "titles", false),
            ("**", "", true),
            ("***", "title", true),
            ("t***e", "title", true),
            ("t**x**e", "title", false),
            ("*le*le", "title", false),
            ("*tle", "title", true),
            ("a*a", "a", false),
            ("a**a", "aa", true),
            ("*ä*", "größe ä", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern}");
            assert_eq!(matches(pattern, name), expected, "{pattern}");
        }
    }

    #[test]
    fn a_long_pattern_costs_its_length_once_and_not_for_each_name() {
        let stars = format!("{}x", "*".repeat(400_000));
        let letters = format!("*{}*", "x".repeat(400_000));
        let (stars, letters) = (Pattern::new(&stars), Pattern::new(&letters));
        assert_eq!((&*stars.text, stars.least), ("*x", 1));
        assert!((0..100_000).all(|_| !stars.matches("title") && !letters.matches("title")));
    }
}
