//! JSON values to the [`Value`]s that a policy sees.

use std::collections::HashSet;

use rerankd_core::{Field, RerankError, Value};

use crate::decode::Place;
use crate::json::{Json, Kind, Number, not_finite};

/// A document's or a request's named values: the members of the object `object`, without those
/// that are null. Of a name that stands twice the last counts.
///
/// # Errors
/// `BadRequest` where `object` is none, and where a value cannot be held.
pub(crate) fn fields(place: Place<'_>, object: Json<'_>) -> Result<Vec<Field>, RerankError> {
    place.expect(Kind::Object, object)?;
    let mut fields = Vec::new();
    for (name, json) in object.members() {
        if !json.is_null() {
            let value = value(place.key(&name), json)?;
            fields.push(Field {
                name: name.into_owned(),
                value,
            });
        }
    }
    keep_last(&mut fields);
    Ok(fields)
}

fn value(place: Place<'_>, json: Json<'_>) -> Result<Value, RerankError> {
    let held = match json.kind() {
        Kind::Array => list(|| json.items()),
        Kind::Number => {
            return scalar(json).ok_or_else(|| place.error(not_finite(json)));
        }
        _ => scalar(json),
    };
    match held {
        Some(value) => Ok(value),
        None => json
            .portable_text()
            .map(Value::Json)
            .map_err(|problem| place.error(problem)),
    }
}

/// A string, a number or a boolean; `None` for anything else and for a number that is not finite.
pub(crate) fn scalar(json: Json<'_>) -> Option<Value> {
    if let Some(text) = json.string() {
        return Some(Value::Text(text.into_owned()));
    }
    if let Some(boolean) = json.boolean() {
        return Some(Value::Boolean(boolean));
    }
    Some(match json.number()? {
        Number::Integer(integer) => Value::Integer(integer),
        Number::Float(float) => Value::Number(float),
    })
}

/// Several values of one name: all strings (or none at all) or all numbers, else `None`. `items`
/// yields them, each time from the first.
pub(crate) fn list<'a, I: Iterator<Item = Json<'a>>>(items: impl Fn() -> I) -> Option<Value> {
    if items()
        .next()
        .is_some_and(|first| first.kind() == Kind::Number)
    {
        let numbers = items().map(|item| Some(item.number()?.to_f64()));
        return numbers.collect::<Option<_>>().map(Value::Numbers);
    }
    let texts = items().map(|item| Some(item.string()?.into_owned()));
    texts.collect::<Option<_>>().map(Value::Texts)
}

fn keep_last(fields: &mut Vec<Field>) {
    let mut seen = HashSet::with_capacity(fields.len());
    let kept: Vec<bool> = fields
        .iter()
        .rev()
        .map(|field| seen.insert(field.name.as_str()))
        .collect();
    let mut kept = kept.into_iter().rev();
    fields.retain(|_| kept.next().unwrap_or(true));
}
