//! The search proxy's pure half: what is done with a search, and the page that comes of it.

mod engine;
mod errors;
mod mapping;
mod multi;
mod options;
mod pages;
mod plans;
mod query_text;
mod widening;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rerankd_core::{Limits, PolicySelector, RerankError, RerankRequest};
use rerankd_wire::search::{
    Found, IndexRule, Pass, Plan, Policies, Rewritten, Rules, SearchCall, plan,
};
use serde_json::Value;

/// A policy that reads `title` and `brand.name`.
pub(crate) struct Fields;

impl Policies for Fields {
    fn fields(&self, selector: &PolicySelector) -> Option<Vec<String>> {
        (selector.name == "semantic-blend").then(|| vec!["title".into(), "brand.name".into()])
    }
}

pub(crate) fn rule(pattern: &str) -> IndexRule {
    IndexRule::new(pattern, PolicySelector::parse("semantic-blend"))
}

/// One rule for all indices, with a window of 50.
pub(crate) fn rules() -> Rules {
    Rules {
        indices: vec![IndexRule {
            window: 50,
            ..rule("*")
        }],
        default_rule: None,
    }
}

/// A search as a client sends it.
#[derive(Clone, Default)]
pub(crate) struct Search {
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Search {
    pub(crate) fn of(body: &str) -> Self {
        let mut search = Self {
            body: body.to_owned(),
            ..Self::default()
        };
        if !body.is_empty() {
            search = search.header("content-type", "application/json");
        }
        search
    }

    pub(crate) fn at(mut self, query: &str) -> Self {
        self.query = Some(query.to_owned());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
        self
    }

    pub(crate) fn call(&self) -> SearchCall<'_> {
        SearchCall {
            index: Some("products"),
            method: &Method::POST,
            path: "/products/_search",
            query: self.query.as_deref(),
            headers: &self.headers,
            body: self.body.as_bytes(),
        }
    }

    pub(crate) fn plan_with(&self, rules: &Rules) -> Result<Plan<'_>, RerankError> {
        plan(&self.call(), rules, &Fields, &Limits::default())
    }

    pub(crate) fn plan(&self) -> Result<Plan<'_>, RerankError> {
        self.plan_with(&rules())
    }

    pub(crate) fn rewritten(&self) -> Box<Rewritten<'_>> {
        match self.plan().unwrap() {
            Plan::Rerank(rewritten) => rewritten,
            Plan::Pass(pass) => panic!("{:?} for {}", pass.reason, self.body),
        }
    }

    pub(crate) fn pass(&self) -> Pass<'_> {
        match self.plan().unwrap() {
            Plan::Pass(pass) => pass,
            Plan::Rerank(_) => panic!("reranked: {}", self.body),
        }
    }

    /// `applied`, or why not.
    pub(crate) fn decision(&self) -> &'static str {
        match self.plan().unwrap() {
            Plan::Pass(pass) => pass.reason.name(),
            Plan::Rerank(_) => "applied",
        }
    }

    /// What a policy is asked, about one hit.
    pub(crate) fn request(&self) -> RerankRequest {
        let rewritten = self.rewritten();
        let answer = br#"{"hits":{"hits":[{"_id":"1","_score":1.0}]}}"#;
        let mut found = read(&rewritten, answer);
        found.request().unwrap()
    }

    pub(crate) fn error(&self) -> String {
        self.plan().map(|_| ()).unwrap_err().message
    }
}

pub(crate) fn read<'b>(rewritten: &'b Rewritten<'_>, answer: &'b [u8]) -> Found<'b> {
    rewritten.read(answer, &Limits::default()).unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

pub(crate) fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}
