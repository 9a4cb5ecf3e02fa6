//! Reads cases, and refuses what no run could make sense of: unknown keys, requests that the native
//! form refuses, documents that are not there.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use rerankd_core::{Limits, RerankRequest};
use rerankd_wire::{Call, Protocol, native::Native};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::expect::{Expectation, RawExpectation};

/// Most bytes of all cases of a policy together.
pub const MAX_BYTES: usize = 256 << 10;

/// Most cases of a policy.
pub const MAX_CASES: usize = 100;

/// Longest message about cases, bytes: they may have names and keys of any length.
const MAX_MESSAGE_BYTES: usize = 2 << 10;

/// Longest name of a case, characters.
const MAX_NAME: usize = 200;

/// Test cases that were read and checked.
#[derive(Debug, Clone)]
pub struct Cases {
    text: String,
    pub(super) cases: Vec<Case>,
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) request: RerankRequest,
    pub(super) expect: Expectation,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile<'a> {
    #[serde(borrow)]
    cases: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase<'a> {
    name: String,
    #[serde(borrow)]
    request: &'a RawValue,
    expect: RawExpectation,
}

impl Cases {
    /// Reads `{"cases": [..]}`, or several of these one after the other.
    ///
    /// # Errors
    /// A sentence that says which case is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_all(text).map_err(|problem| match problem.len() > MAX_MESSAGE_BYTES {
            true => {
                let end = problem.floor_char_boundary(MAX_MESSAGE_BYTES);
                format!("{}…", &problem[..end])
            }
            false => problem,
        })
    }

    fn parse_all(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!(
                "{} bytes of cases; at most {MAX_BYTES} are read",
                text.len()
            ));
        }
        let mut cases: Vec<Case> = Vec::new();
        let mut names = HashSet::new();
        for file in serde_json::Deserializer::from_str(text).into_iter::<RawFile<'_>>() {
            let file = file.map_err(|error| format!("cases: {error}"))?;
            for raw in file.cases {
                let case = read(cases.len(), raw)?;
                if !names.insert(case.name.clone()) {
                    return Err(format!("two cases are called `{}`", case.name));
                }
                if cases.len() == MAX_CASES {
                    return Err(format!("more than {MAX_CASES} cases"));
                }
                cases.push(case);
            }
        }
        Ok(Self {
            text: text.to_owned(),
            cases,
        })
    }

    /// Reads a file, or all files `*.json` of a folder in the order of their names.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), beginning with the path.
    pub fn read(path: &Path) -> Result<Self, String> {
        let mut all = String::new();
        for file in files(path)? {
            let at = |problem: String| format!("`{}`: {problem}", file.display());
            let size = std::fs::metadata(&file).map_err(|error| at(error.to_string()))?;
            if size.len() > MAX_BYTES as u64 {
                return Err(at(format!(
                    "{} bytes; at most {MAX_BYTES} are read",
                    size.len()
                )));
            }
            let text = std::fs::read_to_string(&file).map_err(|error| at(error.to_string()))?;
            // Each alone, so that a mistake is told with its file.
            Self::parse(&text).map_err(at)?;
            all.push_str(&text);
            all.push('\n');
        }
        Self::parse(&all).map_err(|problem| format!("`{}`: {problem}", path.display()))
    }

    /// The JSON that [`parse`](Self::parse) reads.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| format!("`{}`: {error}", path.display()))?;
    let mut files: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    Ok(files)
}

fn read(position: usize, raw: &RawValue) -> Result<Case, String> {
    let raw: RawCase<'_> =
        serde_json::from_str(raw.get()).map_err(|error| format!("case {position}: {error}"))?;
    if raw.name.trim().is_empty() || raw.name.chars().count() > MAX_NAME {
        return Err(format!(
            "case {position}: `name` must have 1 to {MAX_NAME} characters"
        ));
    }
    let at = |problem: String| format!("case `{}`: {problem}", raw.name);
    let request = request(raw.request).map_err(|problem| at(format!("`request`: {problem}")))?;
    let expect = Expectation::resolve(raw.expect, &request).map_err(at)?;
    Ok(Case {
        name: raw.name,
        request,
        expect,
    })
}

/// The request as the native route would read it.
fn request(raw: &RawValue) -> Result<RerankRequest, String> {
    let call = Call {
        path: "",
        target: "",
        body: raw.get().as_bytes(),
        limits: &Limits::default(),
        request_id: "",
        unix_seconds: 0,
    };
    let decoded = Native.decode(&call).map_err(|error| error.message)?;
    let first = decoded.requests.into_iter().next();
    first.ok_or_else(|| "no request".to_owned())
}

/// Documents of a request by what a case may call them.
pub(super) struct Documents<'a> {
    by_id: BTreeMap<&'a str, Vec<usize>>,
    count: usize,
}

impl<'a> Documents<'a> {
    pub(super) fn of(request: &'a RerankRequest) -> Self {
        let mut by_id: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, document) in request.documents.iter().enumerate() {
            if let Some(id) = &document.id {
                by_id.entry(id).or_default().push(index);
            }
        }
        Self {
            by_id,
            count: request.documents.len(),
        }
    }

    /// The position of the document with this id.
    pub(super) fn by_id(&self, id: &str) -> Result<usize, String> {
        match self.by_id.get(id).map(Vec::as_slice) {
            Some([index]) => Ok(*index),
            Some(several) => Err(format!(
                "{} documents are called `{id}`: name them by their position, from 0",
                several.len()
            )),
            None => Err(format!("the request has no document `{id}`")),
        }
    }

    /// The position, if there is a document.
    pub(super) fn by_index(&self, index: usize) -> Result<usize, String> {
        if index < self.count {
            return Ok(index);
        }
        Err(format!(
            "the request has no document at position {index}; it has {}",
            self.count
        ))
    }
}
