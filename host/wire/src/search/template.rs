//! Search templates: the engine renders them, and what comes of that is the search.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use rerankd_core::SkipReason;

use super::body::Body;
use super::options;
use super::plan;
use super::url::Params;
use super::{Forward, SearchCall};
use crate::json::{self, Kind, edited, without};

/// Where templates are rendered.
const RENDER: &str = "/_render/template";

/// What ends the path of a template, behind that of the search.
const SUFFIX: &str = "/template";

/// Most templates of one request that are rendered.
const MOST_RENDERED: usize = 32;

/// Parameters that say of a search what a template's own rendering says, so that the engine drops them.
const DROPPED: [&str; 29] = [
    "_source",
    "_source_exclude",
    "_source_excludes",
    "_source_include",
    "_source_includes",
    "analyze_wildcard",
    "analyzer",
    "default_operator",
    "df",
    "docvalue_fields",
    "explain",
    "from",
    "lenient",
    "q",
    "seq_no_primary_term",
    "size",
    "sort",
    "source",
    "source_content_type",
    "stats",
    "stored_fields",
    "suggest_field",
    "suggest_mode",
    "suggest_size",
    "suggest_text",
    "terminate_after",
    "timeout",
    "track_scores",
    "track_total_hits",
];

/// One template, or several of one request.
#[derive(Debug)]
pub struct Template<'a> {
    /// The path of the search that it stands for.
    pub path: &'a str,
    /// What each of them is, where the request says it of lines of JSON.
    content_type: Option<HeaderValue>,
    drop_headers: Vec<HeaderName>,
    /// The templates, each with the line before it (`None` where there is but one).
    items: Vec<(Option<&'a [u8]>, &'a [u8])>,
}

impl<'a> Template<'a> {
    /// Reads a template, or with `is_multi` the lines of several.
    ///
    /// # Errors
    /// Why it goes through as it is.
    pub fn read(call: &SearchCall<'a>, is_multi: bool) -> Result<Self, SkipReason> {
        let path = call.path.trim_end_matches('/');
        let path = path.strip_suffix(SUFFIX).ok_or(SkipReason::Template)?;
        let params = Params::read(call.query);
        if params.iter().any(|param| DROPPED.contains(&&*param.name)) {
            return Err(SkipReason::Template);
        }
        let items = match is_multi {
            false => vec![(None, call.body)],
            true => {
                let (_, pairs) = super::multi::split(call.body).ok_or(SkipReason::Unparsable)?;
                let pairs = pairs.into_iter();
                pairs.map(|(head, body)| (Some(head), body)).collect()
            }
        };
        if items.len() > MOST_RENDERED {
            return Err(SkipReason::Limit);
        }
        Ok(Self {
            path,
            content_type: is_multi.then(|| of_one_line(call.headers)),
            drop_headers: plan::drop_headers(call.headers),
            items,
        })
    }

    /// What has the engine render each of them, in their order.
    pub fn renderings(&self) -> Vec<Forward<'a>> {
        let one = |&(_, body): &(Option<&[u8]>, &'a [u8])| Forward {
            path_and_query: Cow::Borrowed(RENDER),
            body: Cow::Borrowed(body),
            drop_headers: self.drop_headers.clone(),
            content_type: self.content_type.clone(),
            untouched: false,
        };
        self.items.iter().map(one).collect()
    }

    /// A body that stands for what will be rendered: a search, or several, of some text. What is passed
    /// whatever that is need not be rendered.
    pub fn blank(&self) -> Vec<u8> {
        const SOME_TEXT: &str = r#"{"query":{"match":{"any":"text"}}}"#;
        self.searches(self.items.iter().map(|_| SOME_TEXT.to_owned()))
    }

    /// The body of the search that the engine's renderings are, and whether it has options of ours.
    ///
    /// # Errors
    /// Where one of them is no rendering.
    pub fn rendered(&self, renderings: &[impl AsRef<[u8]>]) -> Result<(Vec<u8>, bool), SkipReason> {
        if renderings.len() != self.items.len() {
            return Err(SkipReason::Template);
        }
        let mut has_options = false;
        let mut searches = Vec::with_capacity(renderings.len());
        for ((_, template), rendering) in self.items.iter().zip(renderings) {
            let search = search_of(template, rendering.as_ref()).ok_or(SkipReason::Template)?;
            let body = Body::read(search.as_bytes())?;
            has_options |= body.without_options().is_some();
            searches.push(search);
        }
        Ok((self.searches(searches.into_iter()), has_options))
    }

    fn searches(&self, bodies: impl Iterator<Item = String>) -> Vec<u8> {
        let mut text = Vec::new();
        for ((head, _), body) in self.items.iter().zip(bodies) {
            match head {
                None => return body.into_bytes(),
                Some(head) => {
                    for line in [head, body.as_bytes()] {
                        text.extend_from_slice(line);
                        text.push(b'\n');
                    }
                }
            }
        }
        text
    }
}

/// A template as it came, without options of ours.
pub fn template_as_sent<'a>(call: &SearchCall<'a>) -> Forward<'a> {
    let params = Params::read(call.query);
    Forward {
        path_and_query: plan::original_target(call, &params),
        body: Cow::Borrowed(call.body),
        drop_headers: plan::drop_headers(call.headers),
        content_type: None,
        untouched: !params.iter().any(|param| options::is_param(&param.name)),
    }
}

/// The answer to a search as OpenSearch gives it to a template: with its status behind the rest.
pub fn with_status(answer: Vec<u8>) -> Vec<u8> {
    let Ok(whole) = json::parse(&answer) else {
        return answer;
    };
    let entries: Vec<_> = whole.entries().collect();
    let (Some((first, value)), Some((_, last))) = (entries.first(), entries.last()) else {
        return answer;
    };
    if whole.member("status").is_some() {
        return answer;
    }
    // As the engine lays out the others.
    let source = whole.source();
    let before = &source[whole.span().start + 1..first.span().start];
    let between = &source[first.span().end..value.span().start];
    let end = last.span().end;
    let status = format!(",{before}\"status\"{between}200");
    [&source[..end], &status, &source[end..]]
        .concat()
        .into_bytes()
}

/// The type of one line of a body of lines: with the version of the whole.
fn of_one_line(headers: &HeaderMap) -> HeaderValue {
    let whole = headers
        .get(CONTENT_TYPE)
        .and_then(|whole| whole.to_str().ok());
    let one = whole.map(|whole| whole.to_ascii_lowercase().replace("x-ndjson", "json"));
    one.and_then(|one| HeaderValue::from_str(&one).ok())
        .unwrap_or(HeaderValue::from_static("application/json"))
}

/// The search that a rendering is: `explain` and `profile` are what the template says beside it.
fn search_of(template: &[u8], rendering: &[u8]) -> Option<String> {
    const SAID_BESIDE: [&str; 2] = ["explain", "profile"];
    let output = json::parse(rendering).ok()?.member("template_output")?;
    if output.kind() != Kind::Object {
        return None;
    }
    let template = json::parse(template).ok()?;
    let rest = edited(output, without(output, |key| SAID_BESIDE.contains(&key)));
    let mut search = String::from("{");
    for name in SAID_BESIDE {
        let value = template.member(name);
        if value.is_some_and(|value| value.text().trim_matches('"') == "true") {
            search.push_str(&format!("\"{name}\":true,"));
        }
    }
    let rest = rest[1..].trim_start();
    if rest == "}" {
        search.truncate(search.trim_end_matches(',').len());
    }
    search.push_str(rest);
    // One line of several must be one.
    Some(search.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_stands_behind_the_rest_in_the_engines_layout() {
        let of = |answer: &str| String::from_utf8(with_status(answer.into())).expect("it is text");
        assert_eq!(
            of(r#"{"took":1,"hits":{}}"#),
            r#"{"took":1,"hits":{},"status":200}"#
        );
        assert_eq!(
            of("{\n  \"took\" : 1\n}\n"),
            "{\n  \"took\" : 1,\n  \"status\" : 200\n}\n"
        );
        for whole in [r#"{"took":1,"status":200}"#, "{}", "no JSON"] {
            assert_eq!(of(whole), whole);
        }
    }

    #[test]
    fn options_of_ours_are_seen_in_a_rendering_also_where_they_are_null() {
        let headers = HeaderMap::new();
        let template = Template::read(
            &SearchCall {
                index: Some("shop"),
                method: &http::Method::POST,
                path: "/shop/_search/template",
                query: None,
                headers: &headers,
                body: b"{}",
            },
            false,
        )
        .expect("it is a template");
        let has_options = |output: &str| {
            let rendering = format!(r#"{{"template_output":{output}}}"#);
            let rendered = template.rendered(&[rendering]);
            rendered.expect("it is a rendering").1
        };
        assert!(has_options(r#"{"ext":{"rerankd":{"window":5}}}"#));
        assert!(has_options(r#"{"ext":{"rerankd":null}}"#));
        assert!(!has_options(r#"{"ext":{"other":null}}"#));
    }

    #[test]
    fn explain_and_profile_are_what_stands_beside_the_template() {
        let of = |template: &str, output: &str| {
            let rendering = format!(r#"{{"template_output":{output}}}"#);
            search_of(template.as_bytes(), rendering.as_bytes())
        };
        let shown = |text: &str| Some(text.to_owned());
        assert_eq!(
            of("{}", r#"{"size":1,"explain":true}"#),
            shown(r#"{"size":1}"#)
        );
        assert_eq!(
            of(r#"{"explain":true,"profile":"true"}"#, "{\n\"size\":1}"),
            shown(r#"{"explain":true,"profile":true,"size":1}"#)
        );
        assert_eq!(
            of(r#"{"profile":true}"#, "{}"),
            shown(r#"{"profile":true}"#)
        );
        assert_eq!(of("{}", "{ }"), shown("{}"));
        assert_eq!(of("{}", "7"), None);
        assert_eq!(search_of(b"{}", b"{}"), None);
    }
}
