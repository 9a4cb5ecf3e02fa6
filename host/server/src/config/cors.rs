//! The part of the configuration that is about web pages of other origins.

use serde::{Deserialize, Serialize};

/// The part of the file.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileCors {
    allow_origins: Option<Vec<String>>,
}

/// Which web pages may call the data plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CorsSettings {
    /// Those of no other origin.
    #[default]
    Off,
    /// Those of any.
    Any,
    /// Those of these origins, as browsers spell them.
    Origins(Vec<String>),
}

impl CorsSettings {
    pub(super) fn resolve(file: FileCors, faults: &mut Vec<String>) -> Self {
        let origins = file.allow_origins.unwrap_or_default();
        if origins.is_empty() {
            return Self::Off;
        }
        if origins == ["*"] {
            return Self::Any;
        }
        for origin in origins.iter().filter(|origin| !is_origin(origin)) {
            faults.push(format!(
                "`{origin}` (cors.allow_origins) must be an origin as browsers send it, such as https://search.example or http://localhost:3000, in lower case and without a path; or the list must be [\"*\"]"
            ));
        }
        Self::Origins(origins)
    }

    pub(super) fn to_file(&self) -> FileCors {
        FileCors {
            allow_origins: match self {
                Self::Off => Some(Vec::new()),
                Self::Any => Some(vec!["*".to_owned()]),
                Self::Origins(origins) => Some(origins.clone()),
            },
        }
    }

    /// What `Access-Control-Allow-Origin` is for a page of `origin`; `None` where it may not call.
    pub(crate) fn allowed<'o>(&self, origin: &'o str) -> Option<&'o str> {
        match self {
            Self::Off => None,
            Self::Any => Some("*"),
            Self::Origins(origins) => origins.iter().any(|one| one == origin).then_some(origin),
        }
    }
}

/// Scheme, host and perhaps a port that is not the scheme's own. `null`, which any sandboxed page sends, is
/// none.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let usual_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "\0",
    };
    let is_scheme = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let parsed = authority.parse::<http::uri::Authority>();
    is_scheme
        && parsed.is_ok_and(|parsed| !parsed.host().is_empty())
        && !authority.contains('@')
        && !authority.ends_with(usual_port)
        && text.bytes().all(|byte| !byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_that_browsers_send() {
        for (text, is) in [
            ("https://search.example", true),
            ("http://localhost:3000", true),
            ("http://[::1]:3000", true),
            ("chrome-extension://abcdefgh", true),
            ("https://search.example/", false),
            ("https://search.example/path", false),
            ("https://Search.example", false),
            ("https://search.example:443", false),
            ("https://user@search.example", false),
            ("search.example", false),
            ("https://", false),
            ("null", false),
            ("*", false),
        ] {
            assert_eq!(is_origin(text), is, "{text}");
        }
    }
}
