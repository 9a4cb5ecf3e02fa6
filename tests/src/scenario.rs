//! What is asked of a search engine, alone and with a policy: `tests/scenarios`, whose README says what each key
//! means. The search proxy and the plugin are held to the same file.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::search_page::{self, Documents};
use crate::{Answer, engine, require};

/// The scenarios with what they are asked of.
pub struct Scenarios {
    /// Bodies that create the indices, by name.
    pub indices: Value,
    /// A body of `_bulk` that fills them.
    pub bulk: String,
    /// The same documents by index and id.
    pub documents: Documents,
    /// What is asked.
    pub scenarios: Vec<Scenario>,
}

/// One call and what must come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows.
    pub name: String,
    /// The engines that can be asked this; all, if there are none.
    #[serde(default)]
    pub engines: Vec<String>,
    /// The ways to a policy that can be asked this; all, if there are none.
    #[serde(default)]
    pub doors: Vec<Door>,
    /// Why the others cannot.
    #[serde(default)]
    pub why: String,
    /// Calls before it, for what only an engine can name.
    #[serde(default)]
    pub before: Vec<Call>,
    /// What the engine is asked.
    #[serde(flatten)]
    pub call: Call,
    /// What is added where a policy stands before the engine.
    #[serde(default)]
    pub options: Options,
    /// What must come of it.
    pub expect: Expectation,
}

/// A way from a search to a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// The search proxy.
    Proxy,
    /// The plugin of OpenSearch.
    Plugin,
}

/// A call of the engine's API. `${name}` in path, query and body is a value that was saved.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    /// GET, POST ..
    #[serde(default = "post")]
    pub method: String,
    /// The raw path.
    pub path: String,
    /// The raw query.
    #[serde(default)]
    pub query: Option<String>,
    /// Headers beside `Content-Type`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A body of JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// A body of lines of JSON.
    #[serde(default)]
    pub lines: Option<Vec<Value>>,
    /// A body as it is.
    #[serde(default)]
    pub text: Option<String>,
    /// Whether the body goes out compressed.
    #[serde(default)]
    pub gzip: bool,
    /// What to keep of the answer: JSON pointers by name.
    #[serde(default)]
    pub save: BTreeMap<String, String>,
}

/// Options of rerankd, by the ways that they can take.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// `ext.rerankd` of the body.
    #[serde(default)]
    pub ext: Option<Value>,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Parameters of the URL.
    #[serde(default)]
    pub query: Option<String>,
}

/// What must come of a call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, tag = "is", rename_all = "kebab-case")]
pub enum Expectation {
    /// The engine's own answer, without a word of rerankd.
    Passed,
    /// The engine's own error, whatever is said beside it.
    PassedError,
    /// The engine's own answer, and why.
    Skipped {
        /// The reason in `Rerank-Status`.
        reason: String,
    },
    /// The engine's own answer, since the policy failed.
    Failed {
        /// The reason in `Rerank-Status`.
        reason: String,
    },
    /// The engine's hits in the order of the policy `nearest-length`.
    Reranked(Ranked),
    /// The engine's hits in another order that only a model can name.
    Permuted,
    /// An error of rerankd in the engine's shape.
    Error {
        /// Its status.
        status: u16,
        /// A part of its text.
        mentions: String,
    },
    /// One of these for each item of `_msearch`.
    Items {
        /// In the order of the request.
        items: Vec<Expectation>,
    },
}

/// How a page is reranked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranked {
    /// The query that the policy gets.
    pub query: String,
    /// The fields that it gets.
    #[serde(default = "fields")]
    pub fields: Vec<String>,
    /// How many hits it gets.
    #[serde(default = "window")]
    pub window: usize,
    /// Scores below this are left out.
    #[serde(default)]
    pub min_score: Option<f64>,
    /// Whether the engine's scores stay beside the new ones.
    #[serde(default)]
    pub keep_scores: bool,
    /// The page.
    #[serde(default)]
    pub from: usize,
    /// Its length.
    #[serde(default = "size")]
    pub size: usize,
}

/// What was saved, by name.
pub type Saved = BTreeMap<String, String>;

impl Scenarios {
    /// Those of the checkout.
    ///
    /// # Panics
    /// If the files are not what they should be.
    pub fn read() -> Self {
        let folder = require::root().join("tests/scenarios");
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let bulk = read("documents.ndjson");
        let scenarios: Vec<Scenario> = serde_json::from_str(&read("search.json"))
            .unwrap_or_else(|error| panic!("search.json: {error}"));
        let mut names: Vec<&str> = scenarios.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|two| two[0] == two[1]);
        assert_eq!(twice, None, "a name stands twice");
        let unexplained = scenarios
            .iter()
            .find(|one| one.doors.is_empty() != one.why.is_empty());
        assert!(
            unexplained.is_none(),
            "`doors` and `why` go together: {unexplained:?}"
        );
        Self {
            indices: serde_json::from_str(&read("indices.json")).expect("indices.json is JSON"),
            documents: search_page::documents(&bulk),
            bulk,
            scenarios,
        }
    }

    /// Those that can be asked of an engine in this way.
    pub fn of<'a>(&'a self, engine: &'a str, door: Door) -> impl Iterator<Item = &'a Scenario> {
        let fits = move |one: &&Scenario| {
            (one.engines.is_empty() || one.engines.iter().any(|name| name == engine))
                && (one.doors.is_empty() || one.doors.contains(&door))
        };
        self.scenarios.iter().filter(fits)
    }
}

impl Scenario {
    /// The calls before it, and then the call as it is.
    pub fn run(&self, address: SocketAddr) -> Answer {
        self.call.send(address, &self.prepare(address))
    }

    /// The calls before it, and what they save.
    pub fn prepare(&self, address: SocketAddr) -> Saved {
        let mut saved = Saved::new();
        for call in &self.before {
            let answer = call.send(address, &saved);
            let body = answer.json();
            for (name, pointer) in &call.save {
                let value = body.pointer(pointer);
                let value = value.unwrap_or_else(|| panic!("{}: no {pointer}: {body}", self.name));
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                saved.insert(name.clone(), text);
            }
        }
        saved
    }

    /// The call with its options.
    pub fn with_options(&self) -> Call {
        let mut call = self.call.clone();
        if let Some(ext) = &self.options.ext {
            let body = call.body.get_or_insert_with(|| serde_json::json!({}));
            body["ext"]["rerankd"] = ext.clone();
        }
        call.headers.extend(self.options.headers.clone());
        if let Some(query) = &self.options.query {
            call.query = Some(match call.query.take() {
                Some(own) => format!("{own}&{query}"),
                None => query.clone(),
            });
        }
        call
    }
}

impl Call {
    /// The same search for the whole window, as the engine alone takes it.
    pub fn widened(&self, window: usize) -> Self {
        let mut wide = self.clone();
        if let (true, Some(body)) = (self.path.ends_with("/template"), &mut wide.body) {
            widen_template(body, window);
            return wide;
        }
        let page = ["from=", "size="];
        let own = self.query.as_deref().unwrap_or_default().split('&');
        let mut query: Vec<String> = own
            .filter(|part| !part.is_empty() && !page.iter().any(|key| part.starts_with(key)))
            .map(str::to_owned)
            .collect();
        query.push(format!("from=0&size={window}"));
        wide.query = Some(query.join("&"));
        wide
    }

    /// The same `_msearch` with every item for the whole window.
    pub fn widened_items(&self, window: usize) -> Self {
        let mut wide = self.clone();
        let bodies = wide.lines.iter_mut().flatten().skip(1).step_by(2);
        for body in bodies {
            if self.path.ends_with("/template") {
                widen_template(body, window);
                continue;
            }
            body["from"] = 0.into();
            body["size"] = window.into();
        }
        wide
    }

    /// Sends it.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn send(&self, address: SocketAddr, saved: &Saved) -> Answer {
        let mut path = self.path.clone();
        if let Some(query) = &self.query {
            path = format!("{path}?{query}");
        }
        let path = filled(&path, saved);
        let mut body = filled(&self.body_text(), saved).into_bytes();
        let mut headers: Vec<(&str, &str)> = Vec::new();
        if !self
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("content-type"))
            && !body.is_empty()
        {
            headers.push((
                "Content-Type",
                match self.lines {
                    Some(_) => "application/x-ndjson",
                    None => "application/json",
                },
            ));
        }
        headers.extend(self.headers.iter().map(|(name, value)| (&**name, &**value)));
        if self.gzip {
            body = gzip(&body);
            headers.push(("Content-Encoding", "gzip"));
        }
        engine::call(address, &self.method, &path, &headers, &body)
    }

    fn body_text(&self) -> String {
        match (&self.body, &self.lines, &self.text) {
            (Some(body), _, _) => body.to_string(),
            (_, Some(lines), _) => lines.iter().map(|line| format!("{line}\n")).collect(),
            (_, _, Some(text)) => text.clone(),
            _ => String::new(),
        }
    }
}

/// The body of an answer, not compressed.
///
/// # Panics
/// If it is neither plain nor gzip.
pub fn plain_body(answer: &Answer) -> Vec<u8> {
    match answer.header("content-encoding") {
        None | Some("identity") => answer.body.clone(),
        Some("gzip") => {
            let mut plain = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(&*answer.body);
            std::io::Read::read_to_end(&mut decoder, &mut plain).expect("it is gzip");
            plain
        }
        Some(other) => panic!("nobody asked for `{other}`"),
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, body).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Templates of scenarios take their page as parameters.
fn widen_template(body: &mut Value, window: usize) {
    body["params"]["from"] = 0.into();
    body["params"]["size"] = window.into();
}

fn filled(text: &str, saved: &Saved) -> String {
    let mut text = text.to_owned();
    for (name, value) in saved {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    text
}

fn post() -> String {
    "POST".to_owned()
}

fn fields() -> Vec<String> {
    vec!["title".to_owned(), "text".to_owned()]
}

fn window() -> usize {
    100
}

fn size() -> usize {
    10
}
