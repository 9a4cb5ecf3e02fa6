//! What a search is asked of, as far as a look-up at the engine needs it, and the paths of the look-ups.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::body::Body;
use super::url::Params;
use crate::json::{Json, Kind};

/// What a name in a path may hold without a percent sign.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'*')
    .remove(b',');

/// The parameters by which engines decide what a name stands for.
const RESOLUTION: [&str; 3] = ["allow_no_indices", "expand_wildcards", "ignore_unavailable"];

/// Longest path of a look-up, bytes: engines take a first line of 4 KiB
/// (`http.max_initial_line_length`).
const MOST_PATH_BYTES: usize = 3500;

/// Longest id of a point in time that is looked up, bytes: each shard adds about 100.
const MOST_PIT_BYTES: usize = 64 << 10;

/// What a search is asked of: an index expression with the parameters by which the engine resolves it,
/// or a point in time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    place: Place,
    /// [`RESOLUTION`] as a query, each with `&` in front.
    options: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Indices(String),
    Pit(String),
}

impl Target {
    /// `index` is the index expression; `params` are those of the URL, and `head` is the head of a search
    /// of several, which is above them.
    pub(super) fn of(
        index: Option<&str>,
        body: &Body<'_>,
        params: &Params<'_>,
        head: Option<&Body<'_>>,
    ) -> Self {
        let pit = body
            .member("pit")
            .and_then(|pit| pit.member("id")?.string());
        if let Some(id) = pit {
            return Self {
                place: Place::Pit(id.into_owned()),
                options: String::new(),
            };
        }
        let mut options = String::new();
        for name in RESOLUTION {
            let in_head = head.and_then(|head| option_text(head.member(name)?));
            let value = in_head.or_else(|| params.get(name).map(str::to_owned));
            if let Some(value) = value {
                let value = utf8_percent_encode(&value, IN_PATH);
                options.push_str(&format!("&{name}={value}"));
            }
        }
        Self {
            place: Place::Indices(index.unwrap_or("_all").to_owned()),
            options,
        }
    }

    /// The indices that a point in time was opened for.
    pub fn of_indices(expression: &str) -> Self {
        Self {
            place: Place::Indices(expression.to_owned()),
            options: String::new(),
        }
    }

    /// The id, where this is a point in time: what it was opened for is to be found first.
    pub fn pit(&self) -> Option<&str> {
        match &self.place {
            Place::Pit(id) => Some(id),
            Place::Indices(_) => None,
        }
    }

    /// What it is made of, the same for no other target.
    pub fn parts(&self) -> [&str; 3] {
        match &self.place {
            Place::Indices(expression) => ["indices", expression, &self.options],
            Place::Pit(id) => ["pit", id, &self.options],
        }
    }

    /// Whether it is short enough to be looked up.
    pub fn can_be_looked_up(&self) -> bool {
        match &self.place {
            Place::Indices(expression) => {
                let least = expression.len() + self.options.len();
                least <= MOST_PATH_BYTES && self.paths().is_some()
            }
            Place::Pit(id) => id.len() <= MOST_PIT_BYTES,
        }
    }

    /// The paths of the look-ups: of the fields, of the names, and of the fields that are searched where
    /// a query names none. `None` for a point in time, and where a path would be longer than engines
    /// take.
    pub fn paths(&self) -> Option<LookupPaths> {
        let Place::Indices(expression) = &self.place else {
            return None;
        };
        let name = utf8_percent_encode(expression, IN_PATH).to_string();
        let options = &self.options;
        if name.len() + options.len() > MOST_PATH_BYTES {
            return None;
        }
        let all = matches!(&**expression, "_all" | "");
        let or = |other| if all { other } else { &*name };
        let wildcards = options
            .split('&')
            .find(|option| option.starts_with("expand_wildcards="));
        let wildcards = wildcards.map_or_else(String::new, |option| format!("?{option}"));
        Some(LookupPaths {
            fields: format!(
                "/{}/_field_caps?fields=*&filter_path=indices,fields.*.*.type{options}",
                or("_all")
            ),
            names: format!("/_resolve/index/{}{wildcards}", or("*")),
            defaults: format!(
                "/{}/_settings/index.query.default_field?flat_settings=true{options}",
                or("_all")
            ),
        })
    }

    /// The one name that was written, if it is one, and no pattern or date math: by it all of the
    /// target was reached.
    pub(super) fn one_name(&self) -> Option<&str> {
        let mut names = self.names();
        let one = names.next().filter(|name| !name.contains(['*', '<']))?;
        (one != "_all" && names.next().is_none()).then_some(one)
    }

    /// Whether an index was written as it is called.
    pub(super) fn says(&self, index: &str) -> bool {
        self.names().any(|name| name == index)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let expression = match &self.place {
            Place::Indices(expression) => expression,
            Place::Pit(_) => "",
        };
        expression.split(',').filter(|name| !name.is_empty())
    }
}

/// Where to ask what a target stands for, each a path with a query, by `GET`.
#[derive(Debug)]
pub struct LookupPaths {
    /// The fields and the indices, from `_field_caps`.
    pub fields: String,
    /// Aliases and data streams, from `_resolve/index`.
    pub names: String,
    /// `index.query.default_field`, from `_settings`.
    pub defaults: String,
}

/// How to ask for the indices of a point in time: a path, by `POST`.
pub const PIT_PATH: &str = "/_search?filter_path=aggregations.*.buckets.key";

/// The body for [`PIT_PATH`]: one hit of each shard is enough.
pub fn pit_body(id: &str) -> String {
    let id = serde_json::Value::from(id);
    format!(
        r#"{{"size":0,"terminate_after":1,"track_total_hits":false,"pit":{{"id":{id}}},"aggs":{{"rerankd":{{"terms":{{"field":"_index","size":1000}}}}}}}}"#
    )
}

/// The indices in the answer to [`pit_body`], as an index expression; `None` where it is not understood.
pub fn pit_indices(answer: &[u8]) -> Option<String> {
    let answer = crate::json::parse(answer).ok()?;
    let buckets = answer
        .member("aggregations")?
        .member("rerankd")?
        .member("buckets")?;
    let names: Option<Vec<_>> = buckets
        .items()
        .map(|bucket| bucket.member("key")?.string())
        .collect();
    names
        .filter(|names| !names.is_empty())
        .map(|names| names.join(","))
}

/// The index expression for which a request opens a point in time, if it does.
pub fn pit_opening(method: &http::Method, path: &str) -> Option<String> {
    let path = path.strip_prefix('/')?.trim_end_matches('/');
    let index = path
        .strip_suffix("/_pit")
        .or_else(|| path.strip_suffix("/_search/point_in_time"))?;
    if method != http::Method::POST || index.contains('/') {
        return None;
    }
    super::url::decoded(index).filter(|index| !index.is_empty())
}

/// The id of the point in time in the answer to its opening.
pub fn pit_opened(answer: &[u8]) -> Option<String> {
    let answer = crate::json::parse(answer).ok()?;
    let id = answer.member("id").or_else(|| answer.member("pit_id"))?;
    id.string().map(|id| id.into_owned())
}

fn option_text(value: Json<'_>) -> Option<String> {
    match value.kind() {
        Kind::String => value.string().map(|text| text.into_owned()),
        Kind::Boolean => Some(value.text().to_owned()),
        Kind::Array => {
            let items: Option<Vec<_>> = value.items().map(Json::string).collect();
            Some(items?.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(index: Option<&str>, query: Option<&str>, head: &str) -> Target {
        let head = Body::read(head.as_bytes()).expect("it is JSON");
        Target::of(index, &Body::empty(), &Params::read(query), Some(&head))
    }

    #[test]
    fn look_ups_are_asked_of_what_the_search_is_asked_of() {
        let paths = target(
            Some("shop,<logs-{now/d}>"),
            Some("expand_wildcards=all"),
            "",
        )
        .paths()
        .expect("it is short");
        assert!(
            paths
                .fields
                .starts_with("/shop,%3Clogs-%7Bnow%2Fd%7D%3E/_field_caps?fields=*&"),
            "{}",
            paths.fields
        );
        assert!(
            paths.fields.ends_with("&expand_wildcards=all"),
            "{}",
            paths.fields
        );
        let names = "/_resolve/index/shop,%3Clogs-%7Bnow%2Fd%7D%3E?expand_wildcards=all";
        assert_eq!(paths.names, names);
        let all = target(None, None, "").paths().expect("it is short");
        assert_eq!(all.names, "/_resolve/index/*");
        assert!(
            all.defaults.starts_with("/_all/_settings/"),
            "{}",
            all.defaults
        );
    }

    #[test]
    fn the_head_of_one_search_is_above_the_url_of_several() {
        let head = r#"{"expand_wildcards":["open","hidden"],"ignore_unavailable":true}"#;
        let target = target(Some("a"), Some("ignore_unavailable=false"), head);
        let fields = target.paths().expect("it is short").fields;
        let options = "&expand_wildcards=open,hidden&ignore_unavailable=true";
        assert!(fields.ends_with(options), "{fields}");
    }

    #[test]
    fn what_no_engine_would_take_is_not_asked() {
        let long = "name-of-an-index,".repeat(400);
        let long = target(Some(&long), None, "");
        assert!(long.paths().is_none() && !long.can_be_looked_up());
        let pit = |id: &str| {
            let body = format!(r#"{{"pit":{{"id":"{id}"}}}}"#);
            let body = Body::read(body.as_bytes()).expect("it is JSON");
            Target::of(None, &body, &Params::read(None), None).can_be_looked_up()
        };
        assert!(pit("an-id") && !pit(&"x".repeat(MOST_PIT_BYTES + 1)));
        assert!(target(None, None, "").can_be_looked_up());
    }

    #[test]
    fn openings_of_points_in_time_are_known_by_their_paths() {
        let opening = |path| pit_opening(&http::Method::POST, path);
        assert_eq!(opening("/shop/_pit").as_deref(), Some("shop"));
        assert_eq!(
            opening("/sh%2Ap/_search/point_in_time").as_deref(),
            Some("sh*p")
        );
        assert_eq!(opening("/_pit"), None);
        assert_eq!(opening("/a/b/_pit"), None);
        assert_eq!(pit_opening(&http::Method::DELETE, "/shop/_pit"), None);
        assert_eq!(pit_opened(br#"{"id":"x"}"#).as_deref(), Some("x"));
        assert_eq!(
            pit_opened(br#"{"pit_id":"y","_shards":{}}"#).as_deref(),
            Some("y")
        );
    }

    #[test]
    fn indices_of_a_point_in_time_are_read_from_its_buckets() {
        let answer = br#"{"aggregations":{"rerankd":{"buckets":[{"key":"a"},{"key":"b"}]}}}"#;
        assert_eq!(pit_indices(answer).as_deref(), Some("a,b"));
        assert_eq!(pit_indices(b"{}"), None);
    }
}
