//! From what a guest says to a ranking: every document judged exactly once, or a fault.

use rerankd_core::ranking::{EMPTY, UNREAD};
use rerankd_core::{Judgment, Outcome, Ranking, SkipReason, Status};
use rerankd_inference::Verdict;

use crate::bindings::contract::types;
use crate::error::Fault;
use crate::imports::log::words;
use crate::texts::Texts;

/// The reason of a score that is no number.
pub(crate) const NOT_FINITE: &str = "not-finite";
/// What a policy says of a row that did not run.
pub(crate) const LATE: &str = "late";
/// The reason in place of one that is no word.
const FAILED: &str = "failed";
/// Longest reason of an unscored document that is kept, bytes.
const MAX_REASON_BYTES: usize = 32;
/// Longest explanation that is kept, bytes.
const MAX_EXPLANATION_BYTES: usize = 1024;
/// How often a text is in memory until it is answered: kept, and escaped in the answer.
const COPIES: usize = 3;

/// What checked judgments amount to.
#[derive(Debug, Clone, PartialEq)]
pub enum Checked {
    /// A ranking in which at least one document was scored, or all were filtered, or there was
    /// nothing to score; and how many of its documents were cut.
    Ranking {
        /// The ranking.
        ranking: Ranking,
        /// What it is.
        status: Status,
        /// Documents of which the model saw only a part.
        truncated: usize,
    },
    /// Rows were late and no document was scored.
    AllLate,
}

/// Most bytes that these judgments take from here to the answer.
pub(crate) fn kept_bytes(judgments: &[types::Judgment]) -> usize {
    let each = judgments.iter().map(|judgment| {
        let reason = match &judgment.outcome {
            types::Outcome::Unscored(reason) => reason.len().min(MAX_REASON_BYTES),
            types::Outcome::Scored(_) | types::Outcome::Filtered => 0,
        };
        let explanation = judgment.explanation.as_ref().map_or(0, String::len);
        size_of::<Judgment>() + COPIES * (reason + explanation.min(MAX_EXPLANATION_BYTES))
    });
    each.sum()
}

/// Checks the judgments on `documents` documents.
///
/// `filters`: whether the manifest allows `filtered`. `late_rows`: rows of this call that the host
/// did not run in time. `texts`: what the tokenizer made of the call's texts.
///
/// # Errors
/// The [`Fault`] that says what is wrong: an index out of range, repeated or missing, a filtered
/// document without leave, or no score at all.
pub fn check(
    judgments: Vec<types::Judgment>,
    documents: usize,
    filters: bool,
    late_rows: usize,
    texts: &Texts,
) -> Result<Checked, Fault> {
    let mut checked: Vec<Option<Judgment>> = vec![None; documents];
    for judgment in judgments {
        let index = judgment.index;
        let Some(slot) = checked.get_mut(index as usize) else {
            return Err(Fault::IndexOutOfRange { index, documents });
        };
        if slot.is_some() {
            return Err(Fault::IndexTwice { index });
        }
        let outcome = match judgment.outcome {
            types::Outcome::Scored(score) if score.is_finite() => Outcome::Scored(score),
            types::Outcome::Scored(_) => Outcome::Unscored(NOT_FINITE.to_owned()),
            types::Outcome::Unscored(reason) => Outcome::Unscored(reason_word(&reason)),
            types::Outcome::Filtered if filters => Outcome::Filtered,
            types::Outcome::Filtered => return Err(Fault::Filtered { index }),
        };
        *slot = Some(Judgment {
            outcome,
            truncated: judgment.truncated,
            explanation: judgment
                .explanation
                .map(|text| words(&text, MAX_EXPLANATION_BYTES)),
        });
    }
    let missing = checked.iter().filter(|slot| slot.is_none()).count();
    if let Some(first) = checked.iter().position(Option::is_none) {
        return Err(Fault::MissingDocuments {
            missing,
            documents,
            first,
        });
    }
    let mut judgments: Vec<Judgment> = checked.into_iter().flatten().collect();
    let truncated = texts.correct(&mut judgments, late_rows);
    let ranking = Ranking::new(judgments);
    let Some(status) = conclude(&ranking, late_rows, texts)? else {
        return Ok(Checked::AllLate);
    };
    Ok(Checked::Ranking {
        ranking,
        status,
        truncated,
    })
}

/// What a ranking is; `None` where all is late.
fn conclude(ranking: &Ranking, late_rows: usize, texts: &Texts) -> Result<Option<Status>, Fault> {
    if ranking.unscored() == 0 {
        return Ok(Some(Status::Applied));
    }
    if ranking.scored() > 0 {
        return Ok(Some(Status::Partial));
    }
    let is_fault = |reason: &&str| matches!(*reason, LATE | NOT_FINITE | FAILED);
    let reasons: Vec<&str> = ranking
        .judgments()
        .iter()
        .filter_map(|judgment| match &judgment.outcome {
            Outcome::Unscored(reason) => Some(reason.as_str()),
            Outcome::Scored(_) | Outcome::Filtered => None,
        })
        .collect();
    let skipped = match texts.query() {
        Some(Verdict::Empty) => SkipReason::NoQuery,
        Some(_) => SkipReason::Unread,
        None if reasons.iter().all(|&reason| reason == EMPTY) => SkipReason::NoText,
        None if late_rows > 0 => return Ok(None),
        None if texts.none_read() => SkipReason::Unread,
        // What nobody can read excuses its own document, and hides no fault in another.
        None if reasons.contains(&UNREAD) && !reasons.iter().any(is_fault) => SkipReason::Unread,
        None => {
            let is_own = |reason: &&&str| !matches!(**reason, EMPTY | UNREAD);
            let reason = reasons.iter().find(is_own);
            return Err(Fault::NoScore {
                documents: ranking.documents(),
                reason: reason.copied().unwrap_or(EMPTY).to_owned(),
            });
        }
    };
    Ok(Some(Status::Skipped(skipped)))
}

/// A reason as it may stand in a header: a short word of letters, digits and `-`.
fn reason_word(reason: &str) -> String {
    let word: String = reason
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(MAX_REASON_BYTES)
        .collect();
    let word = word.trim_matches('-');
    if word.starts_with(|c: char| c.is_ascii_lowercase()) {
        word.to_owned()
    } else {
        FAILED.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(index: u32, outcome: types::Outcome) -> types::Judgment {
        types::Judgment {
            index,
            outcome,
            truncated: false,
            explanation: None,
        }
    }

    #[test]
    fn one_score_that_is_not_finite_spoils_nothing_else() {
        let judgments = vec![
            judged(1, types::Outcome::Scored(0.5)),
            judged(0, types::Outcome::Scored(f64::NAN)),
        ];
        let checked = check(judgments, 2, false, 0, &Texts::default());
        let Ok(Checked::Ranking {
            ranking, status, ..
        }) = checked
        else {
            panic!("a ranking was expected")
        };
        assert_eq!(ranking.order(), [1, 0]);
        assert_eq!(status, Status::Partial);
        assert_eq!(
            ranking.judgment(0).outcome,
            Outcome::Unscored("not-finite".into())
        );
    }

    /// Judgments by letter: `n` NaN, `l` late, `o` of the policy's own reason; texts by letter: `r` read,
    /// `u` unread, `e` empty.
    #[test]
    fn what_nobody_can_read_hides_no_fault_of_the_policy() {
        use rerankd_inference::{Encoding, Reading};

        let unread = Reading {
            verdict: Verdict::Unread,
            unread: 1.0,
        };
        let fault = |reason: &str| {
            Err(Fault::NoScore {
                documents: 3,
                reason: reason.to_owned(),
            })
        };
        for (read, said, expected) in [
            ("urr", "nnn", fault("not-finite")),
            ("err", "nnn", fault("not-finite")),
            ("uer", "lln", fault("not-finite")),
            // Nothing was late, whatever the policy says.
            ("urr", "lll", fault("late")),
            ("urr", "ooo", fault("own")),
            ("uuu", "nnn", Ok(SkipReason::Unread)),
            ("uue", "lnl", Ok(SkipReason::Unread)),
            ("uur", "llo", Ok(SkipReason::Unread)),
            ("uuu", "ooo", Ok(SkipReason::Unread)),
            ("eee", "nll", Ok(SkipReason::NoText)),
        ] {
            let readings = read.chars().map(|letter| match letter {
                'u' => unread,
                'e' => Reading::NOTHING,
                _ => Reading::WHOLE,
            });
            let mut texts = Texts::default();
            let encoding = Encoding {
                readings: readings.collect(),
                ..Encoding::default()
            };
            texts.note(&encoding, &[]);
            let judgments = (0..).zip(said.chars()).map(|(index, letter)| {
                let outcome = match letter {
                    'n' => types::Outcome::Scored(f64::NAN),
                    'l' => types::Outcome::Unscored("late".into()),
                    _ => types::Outcome::Unscored("own".into()),
                };
                judged(index, outcome)
            });
            let checked = check(judgments.collect(), 3, false, 0, &texts);
            let status = checked.map(|checked| match checked {
                Checked::Ranking { status, .. } => status,
                Checked::AllLate => panic!("{read} {said}: nothing was late"),
            });
            assert_eq!(status, expected.map(Status::Skipped), "{read} {said}");
        }
    }

    #[test]
    fn without_any_score_the_reasons_decide() {
        let all = |reason: &str, late| {
            check(
                vec![judged(0, types::Outcome::Unscored(reason.into()))],
                1,
                false,
                late,
                &Texts::default(),
            )
        };
        let Ok(Checked::Ranking { status, .. }) = all("empty", 0) else {
            panic!("expected a ranking")
        };
        assert_eq!(status, Status::Skipped(SkipReason::NoText));
        assert_eq!(all("late", 1), Ok(Checked::AllLate));
        assert_eq!(
            all("bad mood", 0),
            Err(Fault::NoScore {
                documents: 1,
                reason: "bad-mood".into()
            })
        );
    }
}
