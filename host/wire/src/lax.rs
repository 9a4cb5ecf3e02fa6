//! Booleans and integers as lax as those of the imitated servers, most of which are built on pydantic:
//! `"true"`, `1`, `"2"` and `2.0` are what they mean. rerankd's own forms and options are strict.

use rerankd_core::RerankError;

use crate::decode::Place;
use crate::json::{Json, Number};

/// Words for true and false, in any case.
const TRUE: [&str; 6] = ["true", "1", "yes", "y", "on", "t"];
const FALSE: [&str; 6] = ["false", "0", "no", "n", "off", "f"];

/// A boolean, also as 0 or 1 or as a word for it.
///
/// # Errors
/// `BadRequest` at `place`.
pub(crate) fn boolean(place: Place<'_>, json: Json<'_>) -> Result<bool, RerankError> {
    try_boolean(json)
        .ok_or_else(|| place.expected("`true` or `false` (also 0, 1 or a word for it)", json))
}

/// The same; `None` of anything else.
pub(crate) fn try_boolean(json: Json<'_>) -> Option<bool> {
    if let Some(text) = json.string() {
        let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        return (is(&TRUE) || is(&FALSE)).then(|| is(&TRUE));
    }
    match json.number().map(Number::to_f64) {
        Some(0.0) => Some(false),
        Some(1.0) => Some(true),
        Some(_) => None,
        None => json.boolean(),
    }
}

/// An integer, also with a fraction of zeros, as text, or as a boolean. What 64 bits cannot hold is the
/// nearest that they can.
///
/// # Errors
/// `BadRequest` at `place`, in terms of `wanted`.
pub(crate) fn integer(place: Place<'_>, json: Json<'_>, wanted: &str) -> Result<i64, RerankError> {
    if let Some(boolean) = json.boolean() {
        return Ok(i64::from(boolean));
    }
    let text = json.string();
    let text = text.as_deref().map_or(json.text(), str::trim);
    parse(text).ok_or_else(|| place.expected(wanted, json))
}

fn parse(text: &str) -> Option<i64> {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = integer.trim_start_matches(['-', '+']);
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if integer.len() - digits.len() > 1
        || !all_digits(digits)
        || !fraction.trim_end_matches('0').is_empty()
    {
        return None;
    }
    let nearest = || match integer.starts_with('-') {
        true => i64::MIN,
        false => i64::MAX,
    };
    Some(integer.parse().unwrap_or_else(|_| nearest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn booleans_are_what_pydantic_takes_for_one() {
        for (text, wanted) in [
            ("true", Some(true)),
            ("false", Some(false)),
            ("1", Some(true)),
            ("0", Some(false)),
            ("1.0", Some(true)),
            ("\"true\"", Some(true)),
            ("\"False\"", Some(false)),
            ("\"on\"", Some(true)),
            ("\"0\"", Some(false)),
            ("2", None),
            ("\"\"", None),
            ("\"maybe\"", None),
            ("[]", None),
            ("{}", None),
        ] {
            let json = json::parse(text.as_bytes()).expect("it is JSON");
            assert_eq!(try_boolean(json), wanted, "{text}");
        }
    }

    #[test]
    fn integers_are_what_pydantic_takes_for_one() {
        for (text, wanted) in [
            ("2", Some(2)),
            ("-1", Some(-1)),
            ("2.0", Some(2)),
            ("\"2\"", Some(2)),
            ("\" +2.00 \"", Some(2)),
            ("true", Some(1)),
            ("99999999999999999999", Some(i64::MAX)),
            ("1.5", None),
            ("1e2", None),
            ("\"\"", None),
            ("\"--2\"", None),
            ("\"two\"", None),
            ("[]", None),
        ] {
            let json = json::parse(text.as_bytes()).expect("it is JSON");
            let got = integer(Place::Body.key("n"), json, "an integer");
            assert_eq!(got.ok(), wanted, "{text}");
        }
    }
}
