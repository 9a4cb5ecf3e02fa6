//! Where `rerankd warm` has documents from: a file of JSON, one a line, or an index of the search
//! engine, read with a scroll (which Elasticsearch and OpenSearch both have).

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::args::WarmArgs;
use super::client::{percent_encoded, tls};
use super::outcome::Failure;

/// How long the engine keeps a scroll between two batches.
const SCROLL: &str = "5m";

/// Longest wait for the engine.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(60);

/// Most bytes of one page of the engine.
const MAX_PAGE_BYTES: u64 = 256 << 20;

/// Longest line of a file, bytes.
const MAX_LINE_BYTES: usize = 32 << 20;

/// Documents, in batches.
pub(super) enum Source {
    Lines(Lines),
    Index(Index),
}

/// A file.
pub(super) struct Lines {
    name: String,
    lines: BufReader<File>,
    line: usize,
    read_bytes: u64,
    bytes: u64,
}

/// An index of the engine.
pub(super) struct Index {
    agent: ureq::Agent,
    base: String,
    authorization: Option<String>,
    path: String,
    fields: Vec<String>,
    scroll_id: Option<String>,
    started: bool,
    read: u64,
    total: u64,
}

impl Source {
    pub(super) fn open(flags: &WarmArgs) -> Result<Self, Failure> {
        match (&flags.file, &flags.upstream, &flags.index) {
            (Some(path), ..) => {
                let wrong = |error: std::io::Error| {
                    Failure::Usage(format!("`{}` (--file): {error}", path.display()))
                };
                let file = File::open(path).map_err(wrong)?;
                Ok(Self::Lines(Lines {
                    name: path.display().to_string(),
                    bytes: file.metadata().map_err(wrong)?.len(),
                    lines: BufReader::new(file),
                    line: 0,
                    read_bytes: 0,
                }))
            }
            (None, Some(url), Some(index)) => Index::open(flags, url, index).map(Self::Index),
            _ => Err(Failure::Usage(
                "name documents: --file FILE, or --upstream URL and --index NAME".to_owned(),
            )),
        }
    }

    /// At most `count` documents; `None` at the end.
    pub(super) fn next_batch(&mut self, count: usize) -> Result<Option<Vec<Value>>, Failure> {
        let documents = match self {
            Self::Lines(lines) => lines.next_batch(count)?,
            Self::Index(index) => index.next_batch(count)?,
        };
        Ok(Some(documents).filter(|documents| !documents.is_empty()))
    }

    /// How much of it was read, 0 to 1, if that can be told.
    pub(super) fn share(&self) -> Option<f64> {
        let (read, all) = match self {
            Self::Lines(lines) => (lines.read_bytes, lines.bytes),
            Self::Index(index) => (index.read, index.total),
        };
        (all > 0).then(|| read as f64 / all as f64)
    }
}

impl Lines {
    fn next_batch(&mut self, count: usize) -> Result<Vec<Value>, Failure> {
        let mut documents = Vec::new();
        let mut text = Vec::new();
        while documents.len() < count {
            text.clear();
            let wrong = |line: usize, problem: String| {
                Failure::Usage(format!("`{}` (--file), line {line}: {problem}", self.name))
            };
            let mut limited = std::io::Read::take(&mut self.lines, MAX_LINE_BYTES as u64);
            let read = limited
                .read_until(b'\n', &mut text)
                .map_err(|error| wrong(self.line + 1, error.to_string()))?;
            if read == 0 {
                break;
            }
            self.line += 1;
            self.read_bytes += read as u64;
            if read == MAX_LINE_BYTES {
                return Err(wrong(
                    self.line,
                    format!("it has more than {MAX_LINE_BYTES} bytes"),
                ));
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let value: Value = serde_json::from_slice(&text)
                .map_err(|error| wrong(self.line, error.to_string()))?;
            documents.push(document(value).map_err(|problem| wrong(self.line, problem))?);
        }
        Ok(documents)
    }
}

/// What a line says, as a document of a request: a text, an object with `fields`, a hit with
/// `_source`, or an object that is the fields.
fn document(value: Value) -> Result<Value, String> {
    match value {
        Value::String(_) => Ok(value),
        Value::Object(mut object) => {
            let fields = ["fields", "_source"]
                .into_iter()
                .find(|key| object.get(*key).is_some_and(Value::is_object))
                .and_then(|key| object.remove(key));
            Ok(json!({"fields": fields.unwrap_or(Value::Object(object))}))
        }
        _ => Err("expected a text, or an object of fields".to_owned()),
    }
}

impl Index {
    fn open(flags: &WarmArgs, url: &str, index: &str) -> Result<Self, Failure> {
        let wrong = |problem: &str| {
            Failure::Usage(format!(
                "`{url}` (--upstream) {problem}; it must be a URL such as http://127.0.0.1:9200"
            ))
        };
        let parsed: http::Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(ENGINE_TIMEOUT))
            .user_agent(concat!("rerankd/", env!("CARGO_PKG_VERSION")));
        config = match parsed.scheme_str() {
            Some("http") => config,
            Some("https") => config.tls_config(tls(flags.upstream_ca.as_deref(), "--upstream-ca")?),
            _ => return Err(wrong("is neither http nor https")),
        };
        if parsed
            .authority()
            .is_none_or(|host| host.as_str().contains('@'))
        {
            return Err(wrong(
                "must have a host, and no password (--upstream-authorization)",
            ));
        }
        Ok(Self {
            agent: config.build().new_agent(),
            base: url.trim_end_matches('/').to_owned(),
            authorization: flags.upstream_authorization.clone(),
            path: format!("/{}/_search?scroll={SCROLL}", percent_encoded(index)),
            fields: flags.fields.clone(),
            scroll_id: None,
            started: false,
            read: 0,
            total: 0,
        })
    }

    fn next_batch(&mut self, count: usize) -> Result<Vec<Value>, Failure> {
        let page = match &self.scroll_id {
            Some(id) => {
                let body = json!({"scroll": SCROLL, "scroll_id": id});
                self.call(Method::POST, "/_search/scroll", &body)?
            }
            None if self.started => return Ok(Vec::new()),
            None => {
                let mut body = json!({"size": count, "sort": ["_doc"], "track_total_hits": true});
                if !self.fields.is_empty() {
                    body["_source"] = json!(self.fields);
                }
                self.call(Method::POST, &self.path, &body)?
            }
        };
        self.started = true;
        self.scroll_id = page["_scroll_id"].as_str().map(str::to_owned);
        self.total = page["hits"]["total"]["value"]
            .as_u64()
            .unwrap_or(self.total);
        let hits = page["hits"]["hits"].as_array().ok_or_else(|| {
            Failure::Unreachable(format!("`{}`: this is no search engine", self.base))
        })?;
        self.read += hits.len() as u64;
        let documents = hits
            .iter()
            .map(|hit| json!({"fields": hit["_source"].as_object().cloned().unwrap_or_default()}))
            .collect::<Vec<_>>();
        if documents.is_empty() {
            self.end();
        }
        Ok(documents)
    }

    fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        let unreachable = |problem: &dyn std::fmt::Display| {
            Failure::Unreachable(format!("`{}` (--upstream): {problem}", self.base))
        };
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request
            .body(body.to_string())
            .map_err(|error| unreachable(&error))?;
        let mut answer = self
            .agent
            .run(request)
            .map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(MAX_PAGE_BYTES)
            .read_to_vec()
            .map_err(|error| unreachable(&error))?;
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(said);
        }
        let reason = said["error"]["reason"]
            .as_str()
            .unwrap_or("no reason given");
        Err(Failure::refused(format!(
            "`{}` (--upstream): {status}: {reason}",
            self.base
        )))
    }

    /// Gives the scroll back.
    fn end(&mut self) {
        if let Some(id) = self.scroll_id.take() {
            // It would end by itself.
            let _ = self.call(Method::DELETE, "/_search/scroll", &json!({"scroll_id": id}));
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_text_or_fields_in_one_of_three_forms() {
        let check = |line: Value, expected: Value| {
            assert_eq!(document(line).expect("the line is a document"), expected)
        };
        let fields = json!({"fields": {"title": "clog"}});
        check(json!("clog"), json!("clog"));
        check(json!({"title": "clog"}), fields.clone());
        check(
            json!({"_id": "1", "_source": {"title": "clog"}}),
            fields.clone(),
        );
        check(json!({"id": "1", "fields": {"title": "clog"}}), fields);
        // A field of that name.
        check(
            json!({"fields": "of corn"}),
            json!({"fields": {"fields": "of corn"}}),
        );
        assert!(document(json!(7)).is_err());
    }
}
