//! Parameters of a policy: its JSON Schema, and the operator's values overlaid by the request's.

use serde_json::{Map, Value};

use crate::chores::{Budget, Undone};
use crate::schema::{Schema, Stop, shown};

/// Largest schema, bytes of JSON.
const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Deepest schema.
const MAX_SCHEMA_DEPTH: usize = 32;
/// Largest parameters of a request or a release, bytes of JSON.
pub const MAX_PARAMETERS_BYTES: usize = 256 << 10;
/// Known parameters that a message lists.
const SHOWN_NAMES: usize = 20;

/// A compiled schema.
pub struct ParameterSchema {
    schema: Option<Schema>,
    /// Sorted.
    known: Vec<String>,
    takes_others: bool,
}

/// A wrong parameter: where (a path from `parameters`), and the whole sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterError {
    /// Path of the place.
    pub at: String,
    /// What was wrong and what would be right.
    pub message: String,
}

/// Whether the bounds on how much there may be of something hold: manifest entries, bytes of parameters
/// and of patterns. What it costs to read and to check has its bounds either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    /// For what is released.
    Bounded,
    /// For what an older rerankd took: it goes on.
    AsRecorded,
}

/// Why parameters were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unchecked {
    /// They are wrong.
    Wrong(ParameterError),
    /// It was not found out within the budget.
    Undone(Undone),
}

impl ParameterSchema {
    /// Compiles a schema (JSON Schema 2020-12). Whatever it says, it costs the host little: `$ref` stays
    /// inside of it, patterns never backtrack, and what would take long to check is refused.
    ///
    /// # Errors
    /// The problem; or, inside, that the budget is used up.
    pub fn compile(
        schema: Option<&Value>,
        budget: &Budget,
    ) -> Result<Self, Result<String, Undone>> {
        Self::compile_with(schema, Counts::Bounded, budget)
    }

    /// Like [`compile`](Self::compile), with or without bounds on counts.
    pub(crate) fn compile_with(
        schema: Option<&Value>,
        counts: Counts,
        budget: &Budget,
    ) -> Result<Self, Result<String, Undone>> {
        let Some(schema) = schema else {
            return Ok(Self {
                schema: None,
                known: Vec::new(),
                takes_others: false,
            });
        };
        let Some(object) = schema.as_object() else {
            return Err(Ok("it must be a JSON object".to_owned()));
        };
        let size = schema.to_string().len();
        if size > MAX_SCHEMA_BYTES {
            return Err(Ok(format!(
                "{size} bytes; at most {MAX_SCHEMA_BYTES} are allowed"
            )));
        }
        check_references(schema, 0).map_err(Ok)?;
        let compiled = Schema::compile(schema, counts, budget)?;
        let mut known: Vec<String> = object
            .get("properties")
            .and_then(Value::as_object)
            .map(|properties| properties.keys().cloned().collect())
            .unwrap_or_default();
        known.sort_unstable();
        let takes_others = object.get("additionalProperties") != Some(&Value::Bool(false))
            || object.contains_key("patternProperties");
        Ok(Self {
            schema: Some(compiled),
            known,
            takes_others,
        })
    }

    /// Whether the policy has a parameter of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.known
            .binary_search_by(|known| known.as_str().cmp(name))
            .is_ok()
    }

    /// Checks the parameters of a request, an object.
    ///
    /// # Errors
    /// The first [`ParameterError`], or that the budget is used up.
    pub fn check(&self, parameters: &Value, budget: &Budget) -> Result<(), Unchecked> {
        self.check_all(parameters, true, budget)
    }

    /// Checks the operator's parameters, to which a request may add what the schema requires.
    ///
    /// # Errors
    /// The first [`ParameterError`], or that the budget is used up.
    pub fn check_partial(&self, parameters: &Value, budget: &Budget) -> Result<(), Unchecked> {
        self.check_all(parameters, false, budget)
    }

    fn check_all(
        &self,
        parameters: &Value,
        complete: bool,
        budget: &Budget,
    ) -> Result<(), Unchecked> {
        let none = Map::new();
        let members = parameters.as_object().unwrap_or(&none);
        let Some(schema) = &self.schema else {
            return match members.keys().next() {
                Some(name) => Err(self.unknown(name)),
                None => Ok(()),
            };
        };
        if !self.takes_others {
            for name in members.keys() {
                budget.charge(1).map_err(Unchecked::Undone)?;
                if !self.knows(name) {
                    return Err(self.unknown(name));
                }
            }
        }
        schema
            .check(parameters, !complete, budget)
            .map_err(|stop| match stop {
                Stop::Undone(undone) => Unchecked::Undone(undone),
                Stop::Wrong(problem) => {
                    let at = format!("parameters{}", problem.at);
                    Unchecked::Wrong(ParameterError {
                        message: format!("`{at}`: {}", problem.message),
                        at,
                    })
                }
            })
    }

    fn unknown(&self, name: &str) -> Unchecked {
        let name: String = name.chars().take(80).collect();
        let known: Vec<String> = self
            .known
            .iter()
            .map(|known| format!("`{known}`"))
            .collect();
        let more = match known.len().saturating_sub(SHOWN_NAMES) {
            0 => String::new(),
            more => format!(" and {more} others"),
        };
        let known = match known.is_empty() {
            true => "the policy takes none".to_owned(),
            false => format!(
                "the policy takes {}{more}",
                known[..known.len().min(SHOWN_NAMES)].join(", ")
            ),
        };
        Unchecked::Wrong(ParameterError {
            at: format!("parameters.{name}"),
            message: format!("`parameters.{name}`: unknown parameter; {known}"),
        })
    }
}

/// Refuses references that leave the schema, and nesting that costs more than it says.
fn check_references(schema: &Value, depth: usize) -> Result<(), String> {
    if depth > MAX_SCHEMA_DEPTH {
        return Err(format!("it is nested more than {MAX_SCHEMA_DEPTH} deep"));
    }
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                let reference = matches!(key.as_str(), "$ref" | "$dynamicRef");
                if let (true, Some(target)) = (reference, value.as_str())
                    && !target.starts_with('#')
                {
                    let target: String = target.chars().take(80).collect();
                    return Err(format!("`{key}` to `{target}`: only `#..` is allowed"));
                }
                if key == "$id" || key == "$schema" && !is_draft_2020_12(value) {
                    return Err(format!("`{key}` {} is not allowed", shown(value, 80)));
                }
                check_references(value, depth + 1)?;
            }
            Ok(())
        }
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_references(item, depth + 1)),
        _ => Ok(()),
    }
}

fn is_draft_2020_12(value: &Value) -> bool {
    value.as_str() == Some("https://json-schema.org/draft/2020-12/schema")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compile(schema: &Value) -> Result<ParameterSchema, String> {
        let compiled = ParameterSchema::compile(Some(schema), &Budget::steps(1_000_000));
        compiled.map_err(|refused| refused.expect("the budget is large"))
    }

    fn error_of(schema: &Value, parameters: &Value) -> String {
        let schema = compile(schema).expect("the schema is fine");
        match schema.check(parameters, &Budget::steps(1_000_000)) {
            Err(Unchecked::Wrong(error)) => error.message,
            other => panic!("the parameters are wrong: {other:?}"),
        }
    }

    #[test]
    fn an_error_names_the_place_and_what_would_be_right() {
        let schema = json!({
            "type": "object", "additionalProperties": false,
            "properties": {
                "weight": {"type": "number", "minimum": 0, "maximum": 1},
                "fields": {"type": "array", "items": {"type": "string"}},
            },
        });
        assert_eq!(
            error_of(&schema, &json!({"weight": 1.5})),
            "`parameters.weight`: 1.5 is greater than the maximum of 1"
        );
        assert_eq!(
            error_of(&schema, &json!({"fields": ["a", 3]})),
            "`parameters.fields[1]`: 3 is not of type \"string\""
        );
        assert_eq!(
            error_of(&schema, &json!({"wieght": 1})),
            "`parameters.wieght`: unknown parameter; the policy takes `fields`, `weight`"
        );
    }

    #[test]
    fn what_a_schema_requires_may_come_with_the_request() {
        let schema = json!({
            "allOf": [{"required": ["id"]}],
            "properties": {"inner": {"required": ["id"]}},
        });
        let schema = compile(&schema).expect("the schema is fine");
        let budget = Budget::steps(1_000);
        assert!(schema.check(&json!({}), &budget).is_err());
        assert_eq!(schema.check_partial(&json!({}), &budget), Ok(()));
        let inner = json!({"inner": {}});
        assert!(schema.check_partial(&inner, &budget).is_err());
    }

    #[test]
    fn a_schema_stays_inside_itself_and_small() {
        let refused = |schema: &Value, says: &str| {
            let problem = compile(schema).err().expect("it is refused");
            assert!(problem.contains(says), "{problem}");
        };
        refused(
            &json!({"$ref": "https://example.com/schema.json"}),
            "only `#..` is allowed",
        );
        refused(&json!({"description": "x".repeat(70_000)}), "at most 65536");
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({"not": deep});
        }
        refused(&deep, "nested more than 32");
    }

    #[test]
    fn a_pattern_does_not_backtrack() {
        let schema = json!({"properties": {"name": {"pattern": "^(a+)+$"}}});
        let started = std::time::Instant::now();
        let message = error_of(&schema, &json!({"name": format!("{}b", "a".repeat(5_000))}));
        assert!(message.contains("must match"));
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }
}
