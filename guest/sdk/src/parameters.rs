//! The request's parameters, from JSON to the policy's own struct.

use serde::de::DeserializeOwned;

use crate::{Error, Request};

/// Reads the request's parameters.
///
/// `T` is the policy's struct, with `#[derive(Deserialize)]`, `#[serde(deny_unknown_fields,
/// default)]` and a `Default` that holds the defaults of the manifest's schema.
///
/// # Errors
/// [`Error::InvalidRequest`] with the path and what was wrong there, for example
/// ``parameters.fields[1]: invalid type: integer `7`, expected a string``. The host has checked the
/// schema, so this happens only where struct and schema differ.
pub fn parameters<T: DeserializeOwned>(request: &Request) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_str(&request.parameters);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => "parameters".to_owned(),
            path if path.starts_with('[') => format!("parameters{path}"),
            path => format!("parameters.{path}"),
        };
        let message = error.inner().to_string();
        // Line and column are those of the JSON that the host merged; the caller never saw it.
        let message = message.split(" at line ").next().unwrap_or_default();
        Error::InvalidRequest(format!("{path}: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::FirstStage;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Parameters {
        weight: f64,
        fields: Vec<String>,
    }

    impl Default for Parameters {
        fn default() -> Self {
            Self {
                weight: 0.8,
                fields: vec!["title".to_owned()],
            }
        }
    }

    fn read(parameters_json: &str) -> Result<Parameters, Error> {
        parameters(&Request {
            query: "q".to_owned(),
            signals: Vec::new(),
            parameters: parameters_json.to_owned(),
            first_stage: FirstStage::None,
            documents: Vec::new(),
            top_n: None,
            explain: false,
        })
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let expected = Parameters {
            weight: 1.0,
            ..Parameters::default()
        };
        assert_eq!(read("{}"), Ok(Parameters::default()));
        assert_eq!(read(r#"{"weight": 1}"#), Ok(expected));
    }

    #[test]
    fn an_error_names_the_path() {
        let check = |json: &str, expected: &str| {
            assert_eq!(read(json), Err(Error::InvalidRequest(expected.to_owned())));
        };
        check(
            r#"{"weight": "much"}"#,
            "parameters.weight: invalid type: string \"much\", expected f64",
        );
        check(
            r#"{"fields": ["a", 7]}"#,
            "parameters.fields[1]: invalid type: integer `7`, expected a string",
        );
        check(
            r#"{"wieght": 1}"#,
            "parameters.wieght: unknown field `wieght`, expected `weight` or `fields`",
        );
        check(
            "7",
            "parameters: invalid type: integer `7`, expected struct Parameters",
        );
    }
}
