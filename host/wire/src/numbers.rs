//! How scores are printed.
//!
//! Readers in typed languages are strict: OpenSearch's ML Commons casts a score to `Double` and fails
//! on `1`, and on any number of more than 18 characters.

use crate::answer;

/// Decimals of a score in `[0, 1]`, at most: with `0.` in front they make 17 characters.
const DECIMALS: usize = 15;

/// A score as it stands in an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Printed {
    /// A JSON number, always with a point.
    pub(crate) text: String,
    /// The number that a reader gets: what counts for order and `min_score`.
    pub(crate) value: f64,
}

impl Printed {
    /// A score in `[0, 1]`: 1 to 15 decimals, never an exponent; what is below 5e-16 is `0.0`.
    pub(crate) fn unit(score: f64) -> Self {
        let mut text = format!("{score:.DECIMALS$}");
        let kept = text.trim_end_matches('0').len();
        text.truncate(kept);
        if text.ends_with('.') {
            text.push('0');
        }
        Self::of(text)
    }

    /// A score without bounds, as the shortest text that reads back as the same f32.
    pub(crate) fn raw(score: f64) -> Self {
        let single = score as f32;
        Self::of(if single.is_finite() {
            number_f32(single)
        } else {
            number_f64(score)
        })
    }

    fn of(text: String) -> Self {
        let value = text.parse().expect("a printed number reads back");
        Self { text, value }
    }
}

/// A model's score is an f32 on its way through f64, and prints as the shortest text that reads back
/// as that f32; a policy's prints as the shortest that reads back as the f64.
pub(crate) fn number_f64(number: f64) -> String {
    let single = number as f32;
    if f64::from(single) == number {
        number_f32(single)
    } else {
        with_point(&number)
    }
}

/// The shortest text that reads back as the same.
pub(crate) fn number_f32(number: f32) -> String {
    with_point(&number)
}

/// The number with a decimal point in any case, as typed clients (Java, Scala) expect of a float.
fn with_point(number: &impl serde::Serialize) -> String {
    let text = String::from_utf8_lossy(&answer::to_json(number)).into_owned();
    match text.find('e') {
        Some(at) if !text.contains('.') => format!("{}.0{}", &text[..at], &text[at..]),
        _ => text,
    }
}
