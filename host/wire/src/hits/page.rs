//! A search response as bytes: where its hits are, and how to put them into another order without
//! touching anything else.

use std::ops::Range;

use rerankd_core::RerankError;

use crate::answer;
use crate::decode::Place;
use crate::json::{Json, Kind};

/// Ten times what the engines give at most by default (`index.max_result_window`); bounds the memory
/// that the list takes, whatever the window.
const MAX_HITS: usize = 100_000;

/// A search response and the places in it that may change.
pub(super) struct Page<'a> {
    pub(super) response: Json<'a>,
    pub(super) hits: Vec<Hit<'a>>,
    max_score: Option<Json<'a>>,
}

/// One of the hits, and the members of it that matter here. Of a key that stands twice, the last
/// counts, as most readers have it.
pub(super) struct Hit<'a> {
    whole: Json<'a>,
    pub(super) id: Option<Json<'a>>,
    score: Option<Json<'a>>,
    /// An object.
    pub(super) source: Option<Json<'a>>,
    /// An object.
    pub(super) fields: Option<Json<'a>>,
}

/// One line of the new order.
pub(super) struct Row {
    /// The hit's position in the response.
    pub(super) hit: usize,
    /// Its new score; `None` is its own.
    pub(super) score: Option<f64>,
}

/// Replaces the bytes of a range by a text.
type Edit = (Range<usize>, String);

impl<'a> Page<'a> {
    /// Finds the hits of a search response.
    ///
    /// # Errors
    /// `BadRequest` where it is no search response, `TooLarge` for more than [`MAX_HITS`].
    pub(super) fn read(place: Place<'_>, response: Json<'a>) -> Result<Self, RerankError> {
        const SEARCH_RESPONSE: &str = "the search response of an engine, with `hits.hits`";
        if response.kind() != Kind::Object {
            return Err(place.expected(SEARCH_RESPONSE, response));
        }
        let outer_place = place.key("hits");
        let Some(outer) = response.member("hits") else {
            return Err(match response.member("error") {
                Some(_) => place.error(format_args!(
                    "an error of the engine; expected {SEARCH_RESPONSE}"
                )),
                None => outer_place.missing(SEARCH_RESPONSE),
            });
        };
        outer_place.expect(Kind::Object, outer)?;
        let (mut list, mut max_score) = (None, None);
        for (key, value) in outer.members() {
            match &*key {
                "hits" => list = Some(value),
                "max_score" => max_score = Some(value),
                _ => {}
            }
        }
        let list_place = outer_place.key("hits");
        let list = list.ok_or_else(|| list_place.missing("an array of hits"))?;
        list_place.expect(Kind::Array, list)?;
        let count = list.items().count();
        if count > MAX_HITS {
            let problem = format!("{count} hits are more than the limit of {MAX_HITS}");
            return Err(list_place.too_large(problem));
        }
        let items = list.items().enumerate();
        let hits = items.map(|(index, item)| Hit::read(list_place.item(index), item));
        Ok(Self {
            response,
            hits: hits.collect::<Result<_, _>>()?,
            max_score,
        })
    }

    /// The response with its hits in the order of `rows`, and their new scores. With
    /// `keep_first_stage`, each hit gives the engine's score as `fields._first_stage_score` too.
    pub(super) fn reordered(&self, rows: &[Row], keep_first_stage: bool) -> String {
        let hit_text = |row: &Row| {
            let hit = &self.hits[row.hit];
            let mut edits = match (hit.score, row.score) {
                (Some(own), Some(new)) => vec![(own.span(), number(new))],
                _ => Vec::new(),
            };
            if keep_first_stage {
                edits.extend(hit.first_stage_score());
            }
            edited(hit.whole, edits)
        };
        let top_score = rows.first().and_then(|row| {
            let own = || self.hits[row.hit].score.map(|own| own.text().to_owned());
            row.score.map(number).or_else(own)
        });
        let mut edits = self.list_edit(rows, hit_text);
        if let Some(max_score) = self.max_score {
            edits.push((
                max_score.span(),
                top_score.unwrap_or_else(|| "null".to_owned()),
            ));
        }
        edited(self.response, edits)
    }

    /// The text from the first hit to the last is made anew. What stood between two hits stays where
    /// it is and belongs to no hit; with fewer hits, the first of these gaps are used.
    fn list_edit(&self, rows: &[Row], hit_text: impl Fn(&Row) -> String) -> Vec<Edit> {
        let (Some(first), Some(last)) = (self.hits.first(), self.hits.last()) else {
            return Vec::new();
        };
        let span = first.whole.span().start..last.whole.span().end;
        let gap = |slot: usize| {
            let before = self.hits[slot - 1].whole.span().end;
            &self.response.source()[before..self.hits[slot].whole.span().start]
        };
        let mut list = String::with_capacity(span.len() + 16 * rows.len());
        for (slot, row) in rows.iter().enumerate() {
            if slot > 0 {
                list.push_str(gap(slot));
            }
            list.push_str(&hit_text(row));
        }
        vec![(span, list)]
    }
}

impl<'a> Hit<'a> {
    fn read(place: Place<'_>, whole: Json<'a>) -> Result<Self, RerankError> {
        place.expect(Kind::Object, whole)?;
        let mut hit = Self {
            whole,
            id: None,
            score: None,
            source: None,
            fields: None,
        };
        for (key, value) in whole.members() {
            match &*key {
                "_id" => hit.id = Some(value),
                "_score" => hit.score = Some(value),
                "_source" | "fields" if value.is_null() => {}
                "_source" => {
                    place.key("_source").expect(Kind::Object, value)?;
                    hit.source = Some(value);
                }
                "fields" => {
                    place.key("fields").expect(Kind::Object, value)?;
                    hit.fields = Some(value);
                }
                _ => {}
            }
        }
        Ok(hit)
    }

    /// The engine's score, if there is one.
    pub(super) fn score(&self) -> Option<f64> {
        Some(self.score?.number()?.to_f64())
    }

    /// Puts `_first_stage_score` into the hit's `fields`: the engine's score as it was sent.
    fn first_stage_score(&self) -> Option<Edit> {
        const NAME: &str = "_first_stage_score";
        let score = self.score.filter(|score| score.number().is_some())?;
        let values = format!("[{}]", score.text());
        let Some(fields) = self.fields else {
            let behind_score = score.span().end..score.span().end;
            return Some((behind_score, format!(r#","fields":{{"{NAME}":{values}}}"#)));
        };
        if let Some(present) = fields.member(NAME) {
            return Some((present.span(), values));
        }
        let behind_brace = fields.span().start + 1..fields.span().start + 1;
        let comma = if fields.members().next().is_some() {
            ","
        } else {
            ""
        };
        Some((behind_brace, format!(r#""{NAME}":{values}{comma}"#)))
    }
}

/// The value's text with `edits`, whose ranges lie in it and apart from each other.
fn edited(json: Json<'_>, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let source = json.source();
    let mut text = String::with_capacity(json.span().len() + 64);
    let mut at = json.span().start;
    for (range, replacement) in edits {
        text.push_str(&source[at..range.start]);
        text.push_str(&replacement);
        at = range.end;
    }
    text.push_str(&source[at..json.span().end]);
    text
}

fn number(score: f64) -> String {
    String::from_utf8_lossy(&answer::to_json(&score)).into_owned()
}
