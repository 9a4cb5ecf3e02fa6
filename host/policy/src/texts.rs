//! What the tokenizer made of a call's texts, brought together with what the policy says of the
//! documents.
//!
//! A row that is not run, since nobody can read it, comes back as NaN like one that was late, and a
//! policy of the contract 0.1 calls its document `late`. The host knows better, and says so: which row
//! is which document's follows from their number where a call has one text a document, in their order,
//! as policies do; elsewhere, from the fact that no row was late. A number that is not finite may be the
//! policy's own, so elsewhere it is left as it is, unless no text was run at all.

use rerankd_core::ranking::{EMPTY, UNREAD};
use rerankd_core::{Judgment, Outcome};
use rerankd_inference::{Encoding, Verdict};

use crate::check::{LATE, NOT_FINITE};

/// Most texts that are kept, of a call's all; where there are more, none of them is placed.
const MOST_KEPT: usize = 2048;

/// What they take at most, bytes.
pub(crate) const KEPT_BYTES: usize = MOST_KEPT * (size_of::<(u32, Trait)>() + size_of::<Encoded>());

/// The texts of one call of a policy.
#[derive(Debug, Default)]
pub struct Texts {
    /// What became of the query, where that was ever seen; the worst counts.
    query: Option<Verdict>,
    encoded: Vec<Encoded>,
    kept: usize,
    /// Whether any text of a document was read.
    any_read: bool,
    /// What there was beyond [`MOST_KEPT`].
    beyond: Traits,
}

/// What is to be told of a document, by its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trait {
    Cut,
    Unread,
    Empty,
}

/// Counts of texts that have no place among the documents.
#[derive(Debug, Default, Clone, Copy)]
struct Traits {
    cut: usize,
    unread: usize,
    empty: usize,
}

/// One call of the tokenizer that has something to tell.
#[derive(Debug)]
struct Encoded {
    /// How many texts it had.
    texts: usize,
    /// Whether the first of them is the query, and the last.
    query_first: bool,
    query_last: bool,
    /// Position and what is to be told of it.
    told: Vec<(u32, Trait)>,
}

impl Texts {
    /// Notes what a call of the tokenizer made of its texts; `query_rows`, ascending, are those that
    /// are the request's query.
    pub(crate) fn note(&mut self, encoding: &Encoding, query_rows: &[u32]) {
        let query = encoding.query_reading.map(|reading| reading.verdict);
        self.query = self.query.max(query);
        let is_query = |row: u32| query_rows.binary_search(&row).is_ok();
        let documents = || {
            let rows = (0_u32..).zip(&encoding.readings);
            rows.filter(|&(row, _)| !is_query(row))
        };
        self.any_read |= documents().any(|(_, reading)| reading.verdict == Verdict::Read);
        let told = || {
            documents().filter_map(|(row, reading)| {
                let is_cut = || encoding.truncated.binary_search(&row).is_ok();
                let told = match reading.verdict {
                    Verdict::Empty => Trait::Empty,
                    Verdict::Unread => Trait::Unread,
                    Verdict::Read if is_cut() => Trait::Cut,
                    Verdict::Read => return None,
                };
                Some((row, told))
            })
        };
        let count = told().count();
        if count == 0 {
            return;
        }
        if self.kept + count > MOST_KEPT {
            self.beyond.add(told());
            return;
        }
        let told: Vec<(u32, Trait)> = told().collect();
        self.kept += count;
        let texts = encoding.readings.len();
        let last = texts.checked_sub(1).and_then(|row| u32::try_from(row).ok());
        self.encoded.push(Encoded {
            texts,
            query_first: is_query(0),
            query_last: last.is_some_and(is_query),
            told,
        });
    }

    /// What became of the query.
    pub(crate) fn query(&self) -> Option<Verdict> {
        self.query.filter(|&query| query != Verdict::Read)
    }

    /// Whether there were texts, and none was read: then nothing is the policy's fault.
    pub(crate) fn none_read(&self) -> bool {
        !(self.any_read || self.encoded.is_empty() && self.beyond.is_none())
    }

    /// Corrects the reasons of documents whose text was not run, and marks those that were cut.
    /// `late_rows`: how many rows did not run in time. Returns how many documents were cut; at least, where
    /// cut texts have no place among them.
    pub(crate) fn correct(&self, judgments: &mut [Judgment], late_rows: usize) -> usize {
        let cut = |judgments: &[Judgment]| judgments.iter().filter(|one| one.truncated).count();
        if self.query().is_none() && self.encoded.is_empty() && self.beyond.is_none() {
            return cut(judgments);
        }
        let places = Places::of(judgments);
        let mut elsewhere = self.beyond;
        for encoded in &self.encoded {
            match places.of_texts(encoded) {
                Some((positions, before)) => {
                    for &(row, told) in &encoded.told {
                        let place = (row as usize).checked_sub(before);
                        if let Some(&index) = place.and_then(|place| positions.get(place)) {
                            correct(&mut judgments[index], told, is_nan);
                        }
                    }
                }
                None => elsewhere.add(encoded.told.iter().copied()),
            }
        }
        // Where the query is not read, no row is run.
        let of_all = match (self.query(), elsewhere) {
            (Some(Verdict::Empty), _) => Some(Trait::Empty),
            (Some(_), _) => Some(Trait::Unread),
            (None, _) if late_rows > 0 => None,
            (None, Traits { unread: 1.., .. }) => Some(Trait::Unread),
            (None, Traits { empty: 1.., .. }) => Some(Trait::Empty),
            (None, _) => None,
        };
        let is_told: fn(&str) -> bool = match self.query().is_some() || !self.any_read {
            true => is_nan,
            false => |reason| reason == LATE,
        };
        if let Some(told) = of_all {
            judgments
                .iter_mut()
                .for_each(|judgment| correct(judgment, told, is_told));
        }
        // Several of them may be of one document.
        let elsewhere = usize::from(elsewhere.cut > 0);
        cut(judgments).max(elsewhere.min(judgments.len()))
    }
}

impl Traits {
    fn is_none(self) -> bool {
        self.cut + self.unread + self.empty == 0
    }

    fn add(&mut self, told: impl Iterator<Item = (u32, Trait)>) {
        for (_, told) in told {
            match told {
                Trait::Cut => self.cut += 1,
                Trait::Unread => self.unread += 1,
                Trait::Empty => self.empty += 1,
            }
        }
    }
}

/// Which documents a policy may have given the tokenizer one text each of.
struct Places {
    all: Vec<usize>,
    /// Without those that it calls `empty`.
    with_text: Vec<usize>,
    /// Without those that it filtered, either.
    kept: Vec<usize>,
}

impl Places {
    fn of(judgments: &[Judgment]) -> Self {
        let with = |wanted: &dyn Fn(&Outcome) -> bool| -> Vec<usize> {
            let judgments = judgments.iter().enumerate();
            judgments
                .filter(|(_, judgment)| wanted(&judgment.outcome))
                .map(|(index, _)| index)
                .collect()
        };
        let has_text =
            |outcome: &Outcome| !matches!(outcome, Outcome::Unscored(reason) if reason == EMPTY);
        Self {
            all: with(&|_| true),
            with_text: with(&has_text),
            kept: with(&|outcome| has_text(outcome) && *outcome != Outcome::Filtered),
        }
    }

    /// The documents of some texts, and how many texts come before theirs.
    fn of_texts(&self, encoded: &Encoded) -> Option<(&[usize], usize)> {
        let lists = [&self.all, &self.with_text, &self.kept];
        let of = |texts: usize| lists.into_iter().find(|list| list.len() == texts);
        let without_query = || encoded.texts.checked_sub(1).and_then(of);
        let found = match (encoded.query_first, encoded.query_last) {
            (true, _) => without_query().map(|list| (list, 1)),
            (false, true) => without_query().map(|list| (list, 0)),
            (false, false) => None,
        };
        let (list, before) = found.or_else(|| of(encoded.texts).map(|list| (list, 0)))?;
        Some((list, before))
    }
}

/// Whether a row that was not run, which is NaN, can be why.
fn is_nan(reason: &str) -> bool {
    matches!(reason, LATE | NOT_FINITE)
}

/// `is_told`: reasons in whose place that of the text comes.
fn correct(judgment: &mut Judgment, told: Trait, is_told: fn(&str) -> bool) {
    match (&mut judgment.outcome, told) {
        (Outcome::Scored(_), Trait::Cut) => judgment.truncated = true,
        (Outcome::Unscored(reason), Trait::Unread) if is_told(reason) => UNREAD.clone_into(reason),
        (Outcome::Unscored(reason), Trait::Empty) if is_told(reason) => EMPTY.clone_into(reason),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use rerankd_inference::Reading;

    use super::*;

    fn reading(letter: char) -> Reading {
        match letter {
            'u' => Reading {
                verdict: Verdict::Unread,
                unread: 0.75,
            },
            'e' => Reading::NOTHING,
            _ => Reading::WHOLE,
        }
    }

    /// Texts by letter: `r` read, `c` cut, `u` unread, `e` empty; `Q` is the query, which is read.
    fn texts(calls: &[&str]) -> Texts {
        let mut texts = Texts::default();
        for call in calls {
            let of = |wanted: char| -> Vec<u32> {
                (0..)
                    .zip(call.chars())
                    .filter(|&(_, letter)| letter == wanted)
                    .map(|(row, _)| row)
                    .collect()
            };
            let encoding = Encoding {
                readings: call.chars().map(reading).collect(),
                truncated: of('c'),
                ..Encoding::default()
            };
            texts.note(&encoding, &of('Q'));
        }
        texts
    }

    /// Judgments by letter: `s` scored, `l` late, `n` not finite, `e` empty, `f` filtered, `o` of the
    /// policy's own reason; after the correction also `u` unread and `t` scored and cut.
    fn corrected(calls: &[&str], said: &str, late_rows: usize) -> (String, usize) {
        let judgment = |letter| match letter {
            's' => Judgment {
                outcome: Outcome::Scored(0.5),
                truncated: false,
                explanation: None,
            },
            'l' => Judgment::unscored("late"),
            'n' => Judgment::unscored("not-finite"),
            'e' => Judgment::unscored("empty"),
            'o' => Judgment::unscored("own"),
            _ => Judgment {
                outcome: Outcome::Filtered,
                truncated: false,
                explanation: None,
            },
        };
        let mut judgments: Vec<Judgment> = said.chars().map(judgment).collect();
        let cut = texts(calls).correct(&mut judgments, late_rows);
        let letter = |judgment: &Judgment| match &judgment.outcome {
            Outcome::Scored(_) if judgment.truncated => 't',
            Outcome::Scored(_) => 's',
            Outcome::Filtered => 'f',
            Outcome::Unscored(reason) => reason.chars().next().expect("a word"),
        };
        (judgments.iter().map(letter).collect(), cut)
    }

    #[track_caller]
    fn check(calls: &[&str], said: &str, late_rows: usize, means: &str) {
        assert_eq!(
            corrected(calls, said, late_rows).0,
            means,
            "{calls:?} {said}"
        );
    }

    #[test]
    fn a_document_has_the_verdict_of_its_text() {
        check(&["rurec"], "slsls", 0, "suset");
        // The query is the first, or the last, and a document without text has no row.
        check(&["Qrue"], "sell", 0, "seue");
        check(&["rueQ"], "sell", 0, "seue");
        check(&["ru"], "sfl", 0, "sfu");
        // Rows that were late beside those that are unread.
        check(&["Qrur"], "sll", 1, "sul");
        check(&["Qur"], "nl", 1, "ul");
        // Several calls: one field each.
        check(&["rru", "urr"], "lsl", 0, "usu");
    }

    #[test]
    fn a_policys_own_reasons_and_scores_stay() {
        check(&["uuu"], "sof", 0, "sof");
    }

    #[test]
    fn texts_without_a_place_count_where_no_row_was_late() {
        // Passages: several a document.
        check(&["ruurr"], "sls", 0, "sus");
        check(&["ruurr"], "sls", 1, "sls");
        check(&["reerr"], "sls", 0, "ses");
        let many = "u".repeat(MOST_KEPT + 1);
        check(&[&many], &"l".repeat(MOST_KEPT + 1), 0, &many);
    }

    #[test]
    fn a_number_of_the_policys_own_stays_where_texts_have_no_place() {
        check(&["Qruurr"], "nls", 0, "nus");
        check(&["reerr"], "nsl", 0, "nse");
        // Where nothing was run there is no number of its own.
        check(&["uuuee"], "nnn", 0, "uuu");
        check(&["Qeeeee"], "nnn", 0, "eee");
    }

    #[test]
    fn cut_texts_without_a_place_are_of_at_least_one_document() {
        assert_eq!(corrected(&["rccrr"], "sss", 0), ("sss".to_owned(), 1));
        assert_eq!(corrected(&["rcr", "rccrr"], "sss", 0).1, 1);
        assert_eq!(corrected(&["rcc", "rccrr"], "sss", 0).1, 2);
    }

    #[test]
    fn what_stands_behind_too_many_texts_counts() {
        let texts = texts(&[&format!("{}u", "c".repeat(MOST_KEPT + 7))]);
        assert_eq!((texts.beyond.cut, texts.beyond.unread), (MOST_KEPT + 7, 1));
        check(&[&format!("{}u", "e".repeat(MOST_KEPT + 7))], "sl", 0, "su");
    }

    #[test]
    fn a_query_that_is_not_read_leaves_nothing_to_be_late() {
        let query = |letter| {
            let mut texts = Texts::default();
            let encoding = Encoding {
                query_reading: Some(reading(letter)),
                readings: vec![Reading::WHOLE; 2],
                ..Encoding::default()
            };
            texts.note(&encoding, &[]);
            texts
        };
        for (letter, verdict, reason) in [
            ('u', Some(Verdict::Unread), "unread"),
            ('e', Some(Verdict::Empty), "empty"),
            ('r', None, "late"),
        ] {
            let mut judgments = vec![Judgment::unscored("late"); 2];
            let texts = query(letter);
            texts.correct(&mut judgments, 1);
            assert_eq!(texts.query(), verdict);
            assert_eq!(judgments, vec![Judgment::unscored(reason); 2]);
        }
    }
}
