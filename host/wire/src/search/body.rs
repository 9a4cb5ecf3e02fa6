//! The body of a search, read where it stands, and what goes out in its place.

use std::borrow::Cow;

use rerankd_core::SkipReason;

use super::source::Ask;
use crate::answer;
use crate::json::{self, Json, Kind, edited, without};

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

    /// The body that asks for the first `size` hits and what is in `ask`, without options of ours.
    /// It is on one line if the body is.
    pub(super) fn widened(&self, size: usize, ask: &Ask) -> String {
        let mut text = format!(r#"{{"from":0,"size":{size}"#);
        match ask {
            Ask::Nothing => {}
            Ask::Source(names) => text.push_str(&format!(r#","_source":{}"#, names_json(names))),
            Ask::Part {
                includes, excludes, ..
            } => text.push_str(&format!(
                r#","_source":{{"includes":{},"excludes":{}}}"#,
                names_json(includes),
                names_json(excludes)
            )),
            Ask::Fields { names, .. } => {
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
            let value = match &**name {
                "from" | "size" => continue,
                "_source" if ask.replaces_source() => continue,
                "fields" if matches!(ask, Ask::Fields { .. }) => continue,
                "ext" => match Ext::of(*value) {
                    Ext::Foreign => Cow::Borrowed(value.text()),
                    Ext::Ours => continue,
                    Ext::Both => Cow::Owned(edited(*value, without(*value, |key| key == OURS))),
                },
                _ => Cow::Borrowed(value.text()),
            };
            text.push_str(&format!(",{}:{value}", key.text()));
        }
        text.push('}');
        text
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
