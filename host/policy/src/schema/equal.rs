//! When two values are the same to JSON Schema: numbers by what they are worth, objects whatever the
//! order of their keys.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use serde_json::{Number, Value};

use crate::chores::{Budget, Undone};

/// Steps for a text.
pub(super) fn steps_of(text: &str) -> u64 {
    1 + u64::try_from(text.len() / 64).unwrap_or(u64::MAX)
}

pub(super) fn same(one: &Value, other: &Value, budget: &Budget) -> Result<bool, Undone> {
    budget.charge(1)?;
    Ok(match (one, other) {
        (Value::Number(one), Value::Number(other)) => order(one, other) == Some(Ordering::Equal),
        (Value::String(one), Value::String(other)) => {
            budget.charge(steps_of(one))?;
            one == other
        }
        (Value::Array(one), Value::Array(other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            for (one, other) in one.iter().zip(other) {
                if !same(one, other, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Object(one), Value::Object(other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            for (key, one) in one {
                budget.charge(steps_of(key))?;
                match other.get(key) {
                    Some(other) if same(one, other, budget)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (one, other) => one == other,
    })
}

/// Which number is larger; none for what is no number, which JSON has not.
pub(super) fn order(one: &Number, other: &Number) -> Option<Ordering> {
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        (Some(one), None) => against(one, other.as_f64()?),
        (None, Some(other)) => against(other, one.as_f64()?).map(Ordering::reverse),
        (None, None) => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

/// A number that was written without a fraction.
fn whole(number: &Number) -> Option<i128> {
    let signed = number.as_i64().map(i128::from);
    signed.or_else(|| number.as_u64().map(i128::from))
}

fn against(whole: i128, real: f64) -> Option<Ordering> {
    // Beyond that no number without a fraction is a `Number`.
    if real.abs() >= 1e30 {
        return 0.0.partial_cmp(&real);
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "it has no fraction and is far below the bounds"
    )]
    let floor = real.floor() as i128;
    let by_fraction = if real.fract() == 0.0 {
        Ordering::Equal
    } else {
        Ordering::Less
    };
    Some(whole.cmp(&floor).then(by_fraction))
}

/// The number if it has no fraction, however it was written.
pub(super) fn integer(number: &Number) -> Option<i128> {
    whole(number).or_else(|| {
        let real = number.as_f64()?;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "it has no fraction and is far below the bounds"
        )]
        let cast = real as i128;
        (real.fract() == 0.0 && real.abs() < 1e30).then_some(cast)
    })
}

/// Whether a number has no fraction.
pub(super) fn is_integer(number: &Number) -> bool {
    whole(number).is_some() || number.as_f64().is_some_and(|real| real.fract() == 0.0)
}

pub(super) fn is_multiple(number: &Number, of: &Number) -> bool {
    if let (Some(number), Some(of)) = (integer(number), integer(of)) {
        return of != 0 && number % of == 0;
    }
    let (Some(number), Some(of)) = (number.as_f64(), of.as_f64()) else {
        return false;
    };
    let times = number / of;
    if !times.is_finite() {
        return number % of == 0.0;
    }
    let rest = (times % 1.0).abs();
    rest.min(1.0 - rest) < f64::EPSILON
}

/// Whether no two of the values are the same. In proportion to their size: each is looked up by a hash
/// that nobody can foresee.
pub(super) fn are_different(values: &[Value], budget: &Budget) -> Result<bool, Undone> {
    let state = RandomState::new();
    let mut seen: HashMap<u64, Vec<usize>, RandomState> = HashMap::with_hasher(state.clone());
    for (index, value) in values.iter().enumerate() {
        let mut hasher = state.build_hasher();
        hash(value, &mut hasher, budget)?;
        let alike = seen.entry(hasher.finish()).or_default();
        for &earlier in alike.iter() {
            if same(&values[earlier], value, budget)? {
                return Ok(false);
            }
        }
        alike.push(index);
    }
    Ok(true)
}

fn hash(value: &Value, to: &mut impl Hasher, budget: &Budget) -> Result<(), Undone> {
    budget.charge(1)?;
    match value {
        Value::Null => 0_u8.hash(to),
        Value::Bool(bool) => (1_u8, bool).hash(to),
        Value::Number(number) => match integer(number) {
            Some(integer) => (2_u8, integer).hash(to),
            None => (3_u8, number.as_f64().unwrap_or_default().to_bits()).hash(to),
        },
        Value::String(text) => {
            budget.charge(steps_of(text))?;
            (4_u8, text).hash(to);
        }
        Value::Array(values) => {
            (5_u8, values.len()).hash(to);
            for value in values {
                hash(value, to, budget)?;
            }
        }
        Value::Object(members) => {
            (6_u8, members.len()).hash(to);
            for (key, value) in members {
                budget.charge(steps_of(key))?;
                key.hash(to);
                hash(value, to, budget)?;
            }
        }
    }
    Ok(())
}
