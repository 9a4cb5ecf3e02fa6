//! What a server answered, and how to read it without losing a bit.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(header, _)| header == name)?;
        Some(&header.1)
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the answer is UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// The same answer, if its status is 200.
    ///
    /// # Panics
    /// If it is another.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{:?} {}", self.headers, self.text());
        self
    }

    /// The message of rerankd's own error body, after a look at the rest of it.
    ///
    /// # Panics
    /// If it is not the error body for this status.
    #[track_caller]
    pub fn error_message(&self) -> String {
        let body = self.json();
        assert_eq!(body["status"], "error", "{body}");
        assert_eq!(body["error"]["code"], self.status, "{body}");
        let kind = body["error"]["type"].as_str().expect("an error has a type");
        assert_eq!(self.parameter("status"), Some("error"));
        assert_eq!(self.parameter("reason"), Some(&*kind.replace('_', "-")));
        assert_eq!(
            body["error"]["request_id"].as_str(),
            self.header("x-request-id")
        );
        let message = body["error"]["message"].as_str();
        message.expect("an error has a message").to_owned()
    }

    /// A parameter of the one member of `Rerank-Status`: `status`, `reason`, `policy`, `window` ..
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let parameters = self.header("rerank-status")?.strip_prefix("rerankd;")?;
        let parameter = parameters.split(';').find_map(|parameter| {
            let (key, value) = parameter.split_once('=')?;
            (key == name).then_some(value)
        })?;
        Some(parameter.trim_matches('"'))
    }

    /// The scores of a native answer by document, exactly as printed: equal bits or no equality.
    /// Documents without one have `None`; those beyond the last result are not there.
    pub fn scores(&self) -> Vec<Option<f64>> {
        let mut scores = Vec::new();
        for result in self.results() {
            let index: usize = result["index"]
                .get()
                .parse()
                .expect("an index is an integer");
            // serde_json's own reading of a float may be off by one bit; that of Rust is exact.
            let score = result.get("score").map(|score| {
                let score = score.get().parse();
                score.expect("a score is a number")
            });
            if scores.len() <= index {
                scores.resize(index + 1, None);
            }
            scores[index] = score;
        }
        scores
    }

    /// The documents of a native answer, best first, as positions in the request.
    pub fn order(&self) -> Vec<usize> {
        let results = self.results();
        let index = |result: &HashMap<String, &RawValue>| {
            let index = result["index"].get().parse();
            index.expect("an index is an integer")
        };
        results.iter().map(index).collect()
    }

    /// The reasons of unscored documents in a native answer, by position in the request.
    pub fn unscored(&self) -> Vec<(usize, String)> {
        let body = self.json();
        let results = body["results"].as_array().expect("an array of results");
        let mut unscored: Vec<_> = results
            .iter()
            .filter_map(|result| {
                let reason = result["unscored"].as_str()?;
                Some((result["index"].as_u64()? as usize, reason.to_owned()))
            })
            .collect();
        unscored.sort();
        unscored
    }

    /// The numbers of an array in a body of one level, such as Metarank's `scores`.
    pub fn numbers(&self, key: &str) -> Vec<f64> {
        let numbers = raw_object(&self.body)[key];
        let numbers: Vec<&RawValue> =
            serde_json::from_str(numbers.get()).expect("an array of numbers");
        let number = |number: &&RawValue| number.get().parse().expect("a number");
        numbers.iter().map(number).collect()
    }

    fn results(&self) -> Vec<HashMap<String, &RawValue>> {
        let body = raw_object(&self.body);
        let results = body
            .get("results")
            .unwrap_or_else(|| panic!("no results: {}", self.text()));
        serde_json::from_str(results.get()).expect("an array of objects")
    }
}

/// The members of a JSON object as they were printed.
///
/// # Panics
/// If `json` is no object.
pub fn raw_object(json: &[u8]) -> HashMap<String, &RawValue> {
    serde_json::from_slice(json)
        .unwrap_or_else(|error| panic!("no object ({error}): {}", String::from_utf8_lossy(json)))
}

/// Compares numbers bit by bit.
#[track_caller]
pub fn assert_same_bits(one: &[Option<f64>], other: &[Option<f64>]) {
    let bits = |scores: &[Option<f64>]| -> Vec<_> {
        scores.iter().map(|score| score.map(f64::to_bits)).collect()
    };
    assert_eq!(bits(one), bits(other), "{one:?} against {other:?}");
}
