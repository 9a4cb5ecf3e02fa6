//! The body of a search, read where it stands, and what goes out in its place.

use std::borrow::Cow;

use rerankd_core::SkipReason;

use super::source::Ask;
use crate::answer;
use crate::json::{self, Edit, Json, Kind, edited, without};

/// The body of one search.
pub(super) struct Body<'a> {
    /// `None` where there is no body, which means the same as `{}`.
    whole: Option<Json<'a>>,
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    name: Cow<'a, str>,
    key: Json<'a>,
    value: Json<'a>,
}

impl<'a> Body<'a> {
    /// Reads the body of a search.
    ///
    /// # Errors
    /// `Unparsable` where it is no JSON object, or has a key twice, which the engines refuse.
    pub(super) fn read(text: &'a [u8]) -> Result<Self, SkipReason> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::empty());
        }
        let whole = json::parse(text).map_err(|_| SkipReason::Unparsable)?;
        if whole.kind() != Kind::Object {
            return Err(SkipReason::Unparsable);
        }
        let mut entries: Vec<Entry<'a>> = Vec::new();
        for (key, value) in whole.entries() {
            let name = key.string().unwrap_or_default();
            // The engines know some fifty keys.
            if entries.len() == 256 || entries.iter().any(|entry| entry.name == name) {
                return Err(SkipReason::Unparsable);
            }
            entries.push(Entry { name, key, value });
        }
        Ok(Self {
            whole: Some(whole),
            entries,
        })
    }

    pub(super) fn empty() -> Self {
        Self {
            whole: None,
            entries: Vec::new(),
        }
    }

    /// The member of that name.
    pub(super) fn member(&self, name: &str) -> Option<Json<'a>> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        Some(entry.value)
    }

    /// The whole body, if there is one.
    pub(super) fn whole(&self) -> Option<Json<'a>> {
        self.whole
    }

    /// Whether `ext` has a section of that name.
    pub(super) fn has_ext(&self, name: &str) -> bool {
        self.member("ext")
            .is_some_and(|ext| ext.member(name).is_some())
    }

    /// `ext.rerankd`; not `null`.
    pub(super) fn options(&self) -> Option<Json<'a>> {
        let options = self.member("ext")?.member(OURS)?;
        (!options.is_null()).then_some(options)
    }

    /// The body without `ext.rerankd`; `None` where it is not in it. An `ext` that is left empty goes
    /// too.
    pub(super) fn without_options(&self) -> Option<String> {
        let (whole, ext) = (self.whole?, self.member("ext")?);
        Some(match Ext::of(ext) {
            Ext::Foreign => return None,
            Ext::Ours => edited(whole, without(whole, |key| key == "ext")),
            Ext::Both => edited(whole, without(ext, |key| key == OURS)),
        })
    }

    /// The body that asks for hits `from` to `from + size`, without options of ours. It is on one line if
    /// the body is.
    pub(super) fn asking(
        &self,
        (from, size): (usize, usize),
        fetch: Fetch<'_>,
        pins: &[Edit],
    ) -> String {
        let rest = self.rest(fetch, pins);
        format!(r#"{{"from":{from},"size":{size}{rest}"#)
    }

    /// What follows the page in such a body.
    pub(super) fn rest(&self, fetch: Fetch<'_>, pins: &[Edit]) -> String {
        let mut text = String::new();
        match fetch {
            Fetch::Text([]) | Fetch::Lean([]) => text.push_str(r#","_source":false"#),
            Fetch::Text(names) | Fetch::Lean(names) => {
                text.push_str(&format!(r#","_source":{}"#, names_json(names)));
            }
            Fetch::Hits => {}
            Fetch::Asked(Ask::Nothing) => {}
            Fetch::Asked(Ask::Source(names)) => {
                text.push_str(&format!(r#","_source":{}"#, names_json(names)));
            }
            Fetch::Asked(Ask::Part {
                includes, excludes, ..
            }) => text.push_str(&format!(
                r#","_source":{{"includes":{},"excludes":{}}}"#,
                names_json(includes),
                names_json(excludes)
            )),
            Fetch::Asked(Ask::Fields { names, .. }) => {
                let own: Vec<&str> = self
                    .member("fields")
                    .iter()
                    .flat_map(|own| own.items().map(Json::text))
                    .collect();
                let ours = names_json(names);
                let own = own.iter().map(|item| format!("{item},"));
                text.push_str(&format!(
                    r#","fields":[{}{}"#,
                    own.collect::<String>(),
                    &ours[1..]
                ));
            }
        }
        for Entry { name, key, value } in &self.entries {
            let inside =
                |edit: &&Edit| value.span().start <= edit.0.start && edit.0.end <= value.span().end;
            let mut edits: Vec<Edit> = pins.iter().filter(inside).cloned().collect();
            match &**name {
                "from" | "size" => continue,
                _ if fetch.replaces(name) => continue,
                "collapse" if matches!(fetch, Fetch::Text(_) | Fetch::Lean(_)) => {
                    edits.extend(without(*value, |key| key == "inner_hits"));
                }
                "ext" => match Ext::of(*value) {
                    Ext::Foreign => {}
                    Ext::Ours => continue,
                    Ext::Both => edits.extend(without(*value, |key| key == OURS)),
                },
                _ => {}
            }
            text.push_str(&format!(",{}:{}", key.text(), edited(*value, edits)));
        }
        text.push('}');
        text
    }
}

/// What a search brings along for each hit, and beside the hits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fetch<'x> {
    /// What the client wants, and what the policy reads.
    Asked(&'x Ask),
    /// These members of `_source` alone: enough for the policy, and nothing that the client sees.
    Text(&'x [String]),
    /// The same, with all that stands beside the hits.
    Lean(&'x [String]),
    /// All that the client wants of a hit, and nothing beside the hits. The caller says which hits:
    /// `post_filter`.
    Hits,
}

/// What each hit of a page that is shown needs.
const OF_A_HIT: [&str; 9] = [
    "_source",
    "docvalue_fields",
    "explain",
    "fields",
    "highlight",
    "script_fields",
    "seq_no_primary_term",
    "stored_fields",
    "version",
];

/// What such a page needs beside its hits.
const BESIDE_HITS: [&str; 5] = ["aggregations", "aggs", "profile", "stats", "suggest"];

impl Fetch<'_> {
    /// Whether a member of the client's body is left out, or said otherwise.
    fn replaces(self, name: &str) -> bool {
        let (of_a_hit, beside) = (OF_A_HIT.contains(&name), BESIDE_HITS.contains(&name));
        match self {
            Self::Text(_) => of_a_hit || beside,
            Self::Lean(_) => of_a_hit,
            Self::Hits => beside || name == "post_filter",
            Self::Asked(ask) => match name {
                "_source" => ask.replaces_source(),
                "fields" => matches!(ask, Ask::Fields { .. }),
                _ => false,
            },
        }
    }
}

/// The key of our options in `ext`.
const OURS: &str = "rerankd";

/// Whose options are in `ext`.
enum Ext {
    Foreign,
    Ours,
    Both,
}

impl Ext {
    fn of(ext: Json<'_>) -> Self {
        let (mut ours, mut foreign) = (false, false);
        for (key, _) in ext.members() {
            if key == OURS {
                ours = true;
            } else {
                foreign = true;
            }
        }
        match (ours, foreign) {
            (false, _) => Self::Foreign,
            (true, false) => Self::Ours,
            (true, true) => Self::Both,
        }
    }
}

fn names_json(names: &[String]) -> String {
    String::from_utf8_lossy(&answer::to_json(&names)).into_owned()
}
