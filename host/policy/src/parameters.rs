//! Parameters of a policy: its JSON Schema, and the operator's values overlaid by the request's.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

/// Largest schema, bytes of JSON.
const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Deepest schema.
const MAX_SCHEMA_DEPTH: usize = 32;
/// Largest compiled pattern, bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A compiled schema.
pub struct ParameterSchema {
    validator: Option<Validator>,
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

impl ParameterSchema {
    /// Compiles a schema (JSON Schema 2020-12). Patterns never backtrack and `$ref` stays inside the
    /// schema, so that a policy's schema costs the host little whatever it says.
    ///
    /// # Errors
    /// The problem.
    pub fn compile(schema: Option<&Value>) -> Result<Self, String> {
        let Some(schema) = schema else {
            return Ok(Self {
                validator: None,
                known: Vec::new(),
                takes_others: false,
            });
        };
        let Some(object) = schema.as_object() else {
            return Err("it must be a JSON object".to_owned());
        };
        let size = schema.to_string().len();
        if size > MAX_SCHEMA_BYTES {
            return Err(format!(
                "{size} bytes; at most {MAX_SCHEMA_BYTES} are allowed"
            ));
        }
        check_references(schema, 0)?;
        let patterns = PatternOptions::regex()
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(patterns)
            .build(schema)
            .map_err(|error| error.to_string())?;
        let known: Vec<String> = object
            .get("properties")
            .and_then(Value::as_object)
            .map(|properties| properties.keys().cloned().collect())
            .unwrap_or_default();
        let takes_others = object.get("additionalProperties") != Some(&Value::Bool(false));
        Ok(Self {
            validator: Some(validator),
            known,
            takes_others,
        })
    }

    /// Whether the policy has a parameter of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.known.iter().any(|known| known == name)
    }

    /// Checks the parameters of a request.
    ///
    /// # Errors
    /// The first [`ParameterError`].
    pub fn check(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
        self.check_all(parameters, true)
    }

    /// Checks the operator's parameters, to which a request may add what the schema requires.
    ///
    /// # Errors
    /// The first [`ParameterError`].
    pub fn check_partial(&self, parameters: &Map<String, Value>) -> Result<(), ParameterError> {
        self.check_all(parameters, false)
    }

    fn check_all(
        &self,
        parameters: &Map<String, Value>,
        complete: bool,
    ) -> Result<(), ParameterError> {
        let unknown = |name: &str| ParameterError {
            at: format!("parameters.{name}"),
            message: format!(
                "`parameters.{name}`: unknown parameter; {}",
                if self.known.is_empty() {
                    "the policy takes none".to_owned()
                } else {
                    format!("the policy takes {}", quoted(&self.known))
                }
            ),
        };
        let Some(validator) = &self.validator else {
            return match parameters.keys().next() {
                Some(name) => Err(unknown(name)),
                None => Ok(()),
            };
        };
        if !self.takes_others {
            let stranger = parameters.keys().find(|name| !self.knows(name));
            if let Some(name) = stranger {
                return Err(unknown(name));
            }
        }
        let instance = Value::Object(parameters.clone());
        let counts = |error: &ValidationError<'_>| {
            let lacks = matches!(error.kind(), ValidationErrorKind::Required { .. });
            complete || !(lacks && error.instance_path().as_str().is_empty())
        };
        let Some(error) = validator.iter_errors(&instance).find(counts) else {
            return Ok(());
        };
        let mut at = "parameters".to_owned();
        for step in error.instance_path().as_str().split('/').skip(1) {
            if step.bytes().all(|b| b.is_ascii_digit()) && !step.is_empty() {
                at.push_str(&format!("[{step}]"));
            } else {
                at.push('.');
                at.push_str(&step.replace("~1", "/").replace("~0", "~"));
            }
        }
        let message = match error.kind() {
            // Their own text repeats the whole value.
            ValidationErrorKind::Pattern { pattern } => {
                format!("`{at}`: must match `{pattern}`")
            }
            _ => format!("`{at}`: {}", shortened(&error.to_string())),
        };
        Err(ParameterError { at, message })
    }
}

fn quoted(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn shortened(message: &str) -> String {
    const LONGEST: usize = 300;
    if message.chars().count() <= LONGEST {
        return message.to_owned();
    }
    let head: String = message.chars().take(LONGEST).collect();
    format!("{head}…")
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
                    return Err(format!("`{key}` to `{target}`: only `#..` is allowed"));
                }
                if key == "$id" || key == "$schema" && !is_draft_2020_12(value) {
                    return Err(format!("`{key}` {value} is not allowed"));
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

    fn error_of(schema: Value, parameters: Value) -> String {
        let schema = ParameterSchema::compile(Some(&schema)).expect("the schema is fine");
        let parameters = parameters.as_object().expect("an object").clone();
        schema
            .check(&parameters)
            .expect_err("the parameters are wrong")
            .message
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
            error_of(schema.clone(), json!({"weight": 1.5})),
            "`parameters.weight`: 1.5 is greater than the maximum of 1"
        );
        assert_eq!(
            error_of(schema.clone(), json!({"fields": ["a", 3]})),
            "`parameters.fields[1]`: 3 is not of type \"string\""
        );
        assert_eq!(
            error_of(schema, json!({"wieght": 1})),
            "`parameters.wieght`: unknown parameter; the policy takes `fields`, `weight`"
        );
    }

    #[test]
    fn a_schema_stays_inside_itself_and_small() {
        let compile = |schema: Value| ParameterSchema::compile(Some(&schema)).err();
        let remote = json!({"$ref": "https://example.com/schema.json"});
        assert!(compile(remote).is_some_and(|problem| problem.contains("only `#..` is allowed")));
        let big = json!({"description": "x".repeat(70_000)});
        assert!(compile(big).is_some_and(|problem| problem.contains("at most 65536")));
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({"not": deep});
        }
        assert!(compile(deep).is_some_and(|problem| problem.contains("nested more than 32")));
    }

    #[test]
    fn a_pattern_does_not_backtrack() {
        let schema = json!({"properties": {"name": {"pattern": "^(a+)+$"}}});
        let started = std::time::Instant::now();
        let message = error_of(schema, json!({"name": format!("{}b", "a".repeat(5_000))}));
        assert!(message.contains("must match"));
        assert!(started.elapsed() < std::time::Duration::from_secs(1));
    }
}
