//! A value against a schema: the first error, or none; each step is charged.

use std::cmp::Ordering;
use std::fmt::Write;

use serde_json::{Map, Number, Value};

use super::equal::{are_different, is_multiple, order, same, steps_of};
use super::words::{SHOWN_BYTES, counted, cut, kinds, listed, shown, type_names, unexpected};
use super::{Bound, NodeId, Properties, Rule, Schema};
use crate::chores::{Budget, Undone};

/// Schemas and values, one in the other, that a check may be in: it needs stack for each.
const MAX_DEPTH: u32 = 256;

/// What is wrong with a value, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The way to it from the root, such as `.fields[1]`; empty at the root.
    pub(crate) at: String,
    pub(crate) message: String,
}

/// Why a check came to no good end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    Wrong(Problem),
    Undone(Undone),
}

impl From<Undone> for Stop {
    fn from(undone: Undone) -> Self {
        Self::Undone(undone)
    }
}

impl Schema {
    /// Checks a value. With `partial` it may lack what the schema requires of the root.
    ///
    /// # Errors
    /// The first problem, or that the budget is used up.
    pub(crate) fn check(&self, value: &Value, partial: bool, budget: &Budget) -> Result<(), Stop> {
        let check = Check {
            schema: self,
            partial,
            budget,
        };
        let place = Place {
            within: None,
            step: Step::Root,
            is_told: true,
            depth: 0,
        };
        match check.holds(0, value, place, None)? {
            true => Ok(()),
            // What is told ends in an error.
            false => Err(Undone::Panicked.into()),
        }
    }
}

struct Check<'a> {
    schema: &'a Schema,
    partial: bool,
    budget: &'a Budget,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

/// Where a value is, and what becomes of an error there.
#[derive(Clone, Copy)]
struct Place<'a> {
    within: Option<&'a Place<'a>>,
    step: Step<'a>,
    /// Whether the check ends at an error; else it only matters that there is one.
    is_told: bool,
    depth: u32,
}

impl<'a> Place<'a> {
    fn inside(&'a self, step: Step<'a>) -> Place<'a> {
        Place {
            within: Some(self),
            step,
            ..*self
        }
    }

    fn quiet(self) -> Self {
        Self {
            is_told: false,
            ..self
        }
    }

    fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }

    fn path(&self) -> String {
        let mut steps = Vec::new();
        let mut next = Some(self);
        while let Some(place) = next {
            steps.push(place.step);
            next = place.within;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            // Into a string nothing fails.
            let _ = match step {
                Step::Root => Ok(()),
                Step::Key(key) => write!(path, ".{}", cut(key)),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        path
    }
}

/// Which members or items of one value a schema has looked at.
struct Seen(Vec<u64>);

impl Seen {
    fn none(of: usize) -> Self {
        Self(vec![0; of.div_ceil(64)])
    }

    fn add(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn has(&self, index: usize) -> bool {
        self.0[index / 64] & 1 << (index % 64) != 0
    }

    fn add_all(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(&others.0) {
            *word |= other;
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    }
}

impl Check<'_> {
    /// Whether a value fits a node. `seen` takes what was looked at, if anybody wants to know.
    fn holds(
        &self,
        node: NodeId,
        value: &Value,
        place: Place<'_>,
        mut seen: Option<&mut Seen>,
    ) -> Result<bool, Stop> {
        self.budget.charge(1)?;
        if place.depth >= MAX_DEPTH {
            return Err(Undone::Exhausted.into());
        }
        let place = Place {
            depth: place.depth + 1,
            ..place
        };
        let rules = &self.schema.nodes[node].rules;
        let asks = |rule: &Rule| {
            matches!(
                (rule, value),
                (Rule::UnevaluatedItems(_), Value::Array(_))
                    | (Rule::UnevaluatedProperties(_), Value::Object(_))
            )
        };
        // They are the last ones.
        if !rules.iter().rev().take(2).any(asks) {
            for rule in rules {
                if !self.rule(rule, value, &place, seen.as_deref_mut())? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let mut own = self.nothing_seen(value)?;
        for rule in rules {
            if !self.rule(rule, value, &place, Some(&mut own))? {
                return Ok(false);
            }
        }
        if let Some(seen) = seen {
            seen.add_all(&own);
        }
        Ok(true)
    }

    fn nothing_seen(&self, value: &Value) -> Result<Seen, Stop> {
        let size = size(value);
        self.budget.charge(1 + size as u64 / 64)?;
        Ok(Seen::none(size))
    }

    /// As [`holds`](Self::holds), without a word about errors; what a schema has seen that does not fit
    /// does not count.
    fn fits(
        &self,
        node: NodeId,
        value: &Value,
        place: &Place<'_>,
        seen: Option<&mut Seen>,
    ) -> Result<bool, Stop> {
        let Some(seen) = seen else {
            return self.holds(node, value, place.quiet(), None);
        };
        let mut own = self.nothing_seen(value)?;
        let fits = self.holds(node, value, place.quiet(), Some(&mut own))?;
        if fits {
            seen.add_all(&own);
        }
        Ok(fits)
    }

    /// A rule that does not hold.
    fn no(&self, place: &Place<'_>, message: impl FnOnce() -> String) -> Result<bool, Stop> {
        if !place.is_told {
            return Ok(false);
        }
        Err(Stop::Wrong(Problem {
            at: place.path(),
            message: message(),
        }))
    }

    fn rule(
        &self,
        rule: &Rule,
        value: &Value,
        place: &Place<'_>,
        mut seen: Option<&mut Seen>,
    ) -> Result<bool, Stop> {
        self.budget.charge(1)?;
        let here = || shown(value, SHOWN_BYTES);
        match (rule, value) {
            (Rule::Nothing, _) => {
                self.no(place, || format!("False schema does not allow {}", here()))
            }
            (Rule::Types(types), _) => match types & kinds::of(value) {
                0 => self.no(place, || {
                    format!("{} is not of {}", here(), type_names(*types))
                }),
                _ => Ok(true),
            },
            (Rule::Enum(options), _) => {
                for option in options {
                    if same(option, value, self.budget)? {
                        return Ok(true);
                    }
                }
                self.no(place, || {
                    format!("{} is not one of {}", here(), listed(options))
                })
            }
            (Rule::Const(only), _) => match same(only, value, self.budget)? {
                true => Ok(true),
                false => self.no(place, || {
                    format!("{} was expected", shown(only, SHOWN_BYTES))
                }),
            },
            (Rule::Bound(bound, limit), Value::Number(number)) => {
                match within(*bound, number, limit) {
                    true => Ok(true),
                    false => self.no(place, || {
                        let how = match bound {
                            Bound::Minimum => "less than the minimum",
                            Bound::Maximum => "greater than the maximum",
                            Bound::ExclusiveMinimum => "less than or equal to the minimum",
                            Bound::ExclusiveMaximum => "greater than or equal to the maximum",
                        };
                        format!("{number} is {how} of {limit}")
                    }),
                }
            }
            (Rule::MultipleOf(of), Value::Number(number)) => match is_multiple(number, of) {
                true => Ok(true),
                false => self.no(place, || format!("{number} is not a multiple of {of}")),
            },
            (Rule::MinLength(least), Value::String(text)) => match self.length(text)? >= *least {
                true => Ok(true),
                false => self.no(place, || {
                    format!(
                        "{} is shorter than {}",
                        here(),
                        counted(*least, "character", "characters")
                    )
                }),
            },
            (Rule::MaxLength(most), Value::String(text)) => match self.length(text)? <= *most {
                true => Ok(true),
                false => self.no(place, || {
                    format!(
                        "{} is longer than {}",
                        here(),
                        counted(*most, "character", "characters")
                    )
                }),
            },
            (Rule::Pattern(pattern), Value::String(text)) => {
                match pattern.matches(text, self.budget)? {
                    true => Ok(true),
                    // The text itself would be most of the message.
                    false => self.no(place, || format!("must match `{}`", cut(&pattern.source))),
                }
            }
            (Rule::MinItems(least), Value::Array(items)) => match items.len() as u64 >= *least {
                true => Ok(true),
                false => self.no(place, || {
                    format!(
                        "{} has less than {}",
                        here(),
                        counted(*least, "item", "items")
                    )
                }),
            },
            (Rule::MaxItems(most), Value::Array(items)) => match items.len() as u64 <= *most {
                true => Ok(true),
                false => self.no(place, || {
                    format!(
                        "{} has more than {}",
                        here(),
                        counted(*most, "item", "items")
                    )
                }),
            },
            (Rule::UniqueItems, Value::Array(items)) => match are_different(items, self.budget)? {
                true => Ok(true),
                false => self.no(place, || format!("{} has non-unique elements", here())),
            },
            (Rule::Items { first, rest }, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    let Some(node) = first.get(index).copied().or(*rest) else {
                        break;
                    };
                    if !self.holds(node, item, place.inside(Step::Index(index)), None)? {
                        return Ok(false);
                    }
                    if let Some(seen) = &mut seen {
                        seen.add(index);
                    }
                }
                Ok(true)
            }
            (Rule::Contains { what, least, most }, Value::Array(items)) => {
                let mut found = 0;
                for (index, item) in items.iter().enumerate() {
                    let inside = place.inside(Step::Index(index)).quiet();
                    if self.holds(*what, item, inside, None)? {
                        found += 1;
                        if let Some(seen) = &mut seen {
                            seen.add(index);
                        }
                    }
                }
                match (*least..=*most).contains(&found) {
                    true => Ok(true),
                    false if found == 0 => self.no(place, || {
                        format!("None of {} are valid under the given schema", here())
                    }),
                    false => self.no(place, || {
                        format!(
                            "{found} of {} are valid under the schema of `contains`",
                            here()
                        )
                    }),
                }
            }
            (Rule::MinProperties(least), Value::Object(members)) => {
                match members.len() as u64 >= *least {
                    true => Ok(true),
                    false => self.no(place, || {
                        format!(
                            "{} has less than {}",
                            here(),
                            counted(*least, "property", "properties")
                        )
                    }),
                }
            }
            (Rule::MaxProperties(most), Value::Object(members)) => {
                match members.len() as u64 <= *most {
                    true => Ok(true),
                    false => self.no(place, || {
                        format!(
                            "{} has more than {}",
                            here(),
                            counted(*most, "property", "properties")
                        )
                    }),
                }
            }
            (Rule::Required(names), Value::Object(members)) => {
                if self.partial && place.is_told && place.is_root() {
                    return Ok(true);
                }
                self.required(names, members, place)
            }
            (Rule::DependentRequired(each), Value::Object(members)) => {
                for (name, names) in each {
                    self.budget.charge(steps_of(name))?;
                    if members.contains_key(name) && !self.required(names, members, place)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Rule::DependentSchemas(each), Value::Object(members)) => {
                for (name, node) in each {
                    self.budget.charge(steps_of(name))?;
                    if members.contains_key(name)
                        && !self.holds(*node, value, *place, seen.as_deref_mut())?
                    {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Rule::PropertyNames(node), Value::Object(members)) => {
                for name in members.keys() {
                    self.budget.charge(steps_of(name))?;
                    let name = Value::String(name.clone());
                    if !self.holds(*node, &name, *place, None)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Rule::Properties(properties), Value::Object(members)) => {
                self.properties(properties, members, place, seen)
            }
            (Rule::AllOf(all), _) => {
                for node in all {
                    if !self.holds(*node, value, *place, seen.as_deref_mut())? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Rule::AnyOf(all), _) => {
                let mut fits = false;
                for node in all {
                    fits |= self.fits(*node, value, place, seen.as_deref_mut())?;
                    // What the others have seen matters only if somebody asks.
                    if fits && seen.is_none() {
                        break;
                    }
                }
                match fits {
                    true => Ok(true),
                    false => self.no(place, || {
                        let of = "any of the schemas listed in the 'anyOf' keyword";
                        format!("{} is not valid under {of}", here())
                    }),
                }
            }
            (Rule::OneOf(all), _) => {
                let mut fitting = 0;
                for node in all {
                    fitting += u8::from(self.fits(*node, value, place, seen.as_deref_mut())?);
                    if fitting > 1 {
                        return self.no(place, || {
                            let of = "more than one of the schemas listed in the 'oneOf' keyword";
                            format!("{} is valid under {of}", here())
                        });
                    }
                }
                match fitting {
                    1 => Ok(true),
                    _ => self.no(place, || {
                        let of = "any of the schemas listed in the 'oneOf' keyword";
                        format!("{} is not valid under {of}", here())
                    }),
                }
            }
            (Rule::Not(node), _) => match self.holds(*node, value, place.quiet(), None)? {
                false => Ok(true),
                true => self.no(place, || {
                    format!("{} is what the schema of `not` excludes", here())
                }),
            },
            (
                Rule::If {
                    condition,
                    then,
                    otherwise,
                },
                _,
            ) => {
                let next = match self.fits(*condition, value, place, seen.as_deref_mut())? {
                    true => then,
                    false => otherwise,
                };
                match next {
                    Some(node) => self.holds(*node, value, *place, seen),
                    None => Ok(true),
                }
            }
            (Rule::Ref(node), _) => self.holds(*node, value, *place, seen),
            (Rule::UnevaluatedItems(node), Value::Array(items)) => {
                let each = items.iter().enumerate();
                let each = each.map(|(index, item)| (Step::Index(index), item));
                self.unevaluated("items", *node, each, place, seen)
            }
            (Rule::UnevaluatedProperties(node), Value::Object(members)) => {
                let each = members.iter();
                let each = each.map(|(name, member)| (Step::Key(name), member));
                self.unevaluated("properties", *node, each, place, seen)
            }
            // They say nothing about a value of another kind.
            _ => Ok(true),
        }
    }

    fn length(&self, text: &str) -> Result<u64, Stop> {
        self.budget.charge(steps_of(text))?;
        Ok(text.chars().count() as u64)
    }

    fn required(
        &self,
        names: &[String],
        members: &Map<String, Value>,
        place: &Place<'_>,
    ) -> Result<bool, Stop> {
        for name in names {
            self.budget.charge(steps_of(name))?;
            if !members.contains_key(name) {
                return self.no(place, || {
                    let name = shown(&Value::String(cut(name).to_owned()), SHOWN_BYTES);
                    format!("{name} is a required property")
                });
            }
        }
        Ok(true)
    }

    fn properties(
        &self,
        properties: &Properties,
        members: &Map<String, Value>,
        place: &Place<'_>,
        mut seen: Option<&mut Seen>,
    ) -> Result<bool, Stop> {
        for (index, (name, member)) in members.iter().enumerate() {
            self.budget.charge(steps_of(name))?;
            let inside = place.inside(Step::Key(name));
            let mut is_known = false;
            if let Some(node) = properties.named.get(name) {
                is_known = true;
                if !self.holds(*node, member, inside, None)? {
                    return Ok(false);
                }
            }
            for (pattern, node) in &properties.patterns {
                if pattern.matches(name, self.budget)? {
                    is_known = true;
                    if !self.holds(*node, member, inside, None)? {
                        return Ok(false);
                    }
                }
            }
            if let (false, Some(others)) = (is_known, properties.others) {
                is_known = true;
                if self.schema.is_false(others) {
                    return self.no(place, || unexpected("Additional properties", name));
                }
                if !self.holds(others, member, inside, None)? {
                    return Ok(false);
                }
            }
            if let (true, Some(seen)) = (is_known, &mut seen) {
                seen.add(index);
            }
        }
        Ok(true)
    }

    fn unevaluated<'a>(
        &self,
        what: &str,
        node: NodeId,
        each: impl Iterator<Item = (Step<'a>, &'a Value)>,
        place: &Place<'_>,
        seen: Option<&mut Seen>,
    ) -> Result<bool, Stop> {
        // Who asks brought one.
        let Some(seen) = seen else {
            return Ok(true);
        };
        for (index, (step, value)) in each.enumerate() {
            self.budget.charge(1)?;
            if seen.has(index) {
                continue;
            }
            if !self.holds(node, value, place.inside(step).quiet(), None)? {
                return self.no(place, || match step {
                    Step::Key(name) => unexpected(&format!("Unevaluated {what}"), name),
                    _ => unexpected(&format!("Unevaluated {what}"), &shown(value, 80)),
                });
            }
            seen.add(index);
        }
        Ok(true)
    }
}

impl Schema {
    fn is_false(&self, node: NodeId) -> bool {
        matches!(self.nodes[node].rules.as_slice(), [Rule::Nothing])
    }
}

fn within(bound: Bound, number: &Number, limit: &Number) -> bool {
    let order = order(number, limit);
    match bound {
        Bound::Minimum => order.is_some_and(Ordering::is_ge),
        Bound::Maximum => order.is_some_and(Ordering::is_le),
        Bound::ExclusiveMinimum => order.is_some_and(Ordering::is_gt),
        Bound::ExclusiveMaximum => order.is_some_and(Ordering::is_lt),
    }
}
