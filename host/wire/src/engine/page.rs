//! A search response as bytes: where its hits are, and how to put them into another order without
//! touching anything else.

use rerankd_core::RerankError;

use super::strip::Strip;
use crate::answer;
use crate::decode::Place;
use crate::json::{self, Edit, Json, Kind, edited};

/// Ten times what the engines give at most by default (`index.max_result_window`); bounds the memory
/// that the list takes, whatever the window.
const MAX_HITS: usize = 100_000;

/// A search response and the places in it that may change.
pub(crate) struct Page<'a> {
    pub(crate) response: Json<'a>,
    pub(crate) hits: Vec<Hit<'a>>,
    list: Json<'a>,
    max_score: Option<Json<'a>>,
}

/// One of the hits, and the members of it that matter here. Of a key that stands twice, the last
/// counts, as most readers have it.
pub(crate) struct Hit<'a> {
    pub(crate) whole: Json<'a>,
    pub(crate) index: Option<Json<'a>>,
    pub(crate) id: Option<Json<'a>>,
    pub(crate) score: Option<Json<'a>>,
    /// An object.
    pub(crate) source: Option<Json<'a>>,
    /// An object.
    pub(crate) fields: Option<Json<'a>>,
    /// Whether it says by what it was sorted.
    pub(crate) is_sorted: bool,
}

/// One line of the new order.
pub(crate) struct Row {
    /// The hit's position in the response.
    pub(crate) hit: usize,
    /// Its new score; `None` is its own.
    pub(crate) score: Option<f64>,
}

impl<'a> Page<'a> {
    /// Finds the hits of a search response.
    ///
    /// # Errors
    /// `BadRequest` where it is no search response, `TooLarge` for more than [`MAX_HITS`].
    pub(crate) fn read(place: Place<'_>, response: Json<'a>) -> Result<Self, RerankError> {
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
            list,
            max_score,
        })
    }

    /// The response with the hits and scores of `edition`.
    pub(crate) fn edited(&self, edition: &Edition<'_>) -> String {
        edited(self.response, self.edits(edition))
    }

    /// The same, with what stands around the response.
    pub(crate) fn edited_around(&self, edition: &Edition<'_>) -> String {
        json::edited_around(self.response, self.edits(edition))
    }

    /// The response with these hits in place of its own, no more than it has, this highest score, and
    /// what else is edited; `around`: with what stands around the response.
    pub(crate) fn with_hits(
        &self,
        hits: &[String],
        max_score: String,
        mut edits: Vec<Edit>,
        around: bool,
    ) -> String {
        edits.extend(self.list_edit(hits));
        if let Some(own) = self.max_score {
            edits.push((own.span(), max_score));
        }
        match around {
            true => json::edited_around(self.response, edits),
            false => edited(self.response, edits),
        }
    }

    /// The hits of an edition, as they are printed.
    pub(crate) fn hit_texts(&self, edition: &Edition<'_>) -> Vec<String> {
        let rows = edition.rows.iter();
        rows.map(|row| self.hit_text(row, edition)).collect()
    }

    fn edits(&self, edition: &Edition<'_>) -> Vec<Edit> {
        let mut edits = self.list_edit(&self.hit_texts(edition));
        if let (Some(max_score), Some(new)) = (self.max_score, &edition.max_score) {
            edits.push((max_score.span(), new.clone()));
        }
        edits
    }

    /// The score that stands at the top: the new or own one of the first row, `null` without rows.
    pub(crate) fn top_score(&self, first: Option<&Row>) -> String {
        let score = first.and_then(|row| {
            let own = || self.hits[row.hit].score.map(|own| own.text().to_owned());
            row.score.map(number).or_else(own)
        });
        score.unwrap_or_else(|| "null".to_owned())
    }

    fn hit_text(&self, row: &Row, edition: &Edition<'_>) -> String {
        let hit = &self.hits[row.hit];
        let Some(strip) = edition.strip else {
            return edited(hit.whole, hit.score_edits(row, edition));
        };
        let mut edits = strip.edits(hit);
        if !edition.keep_first_stage {
            edits.extend(hit.score_edits(row, edition));
            return edited(hit.whole, edits);
        }
        // What goes and what is added may lie in the same section.
        let stripped = edited(hit.whole, edits);
        let whole =
            json::parse(stripped.as_bytes()).and_then(|whole| Hit::read(Place::Body, whole));
        match whole {
            Ok(hit) => edited(hit.whole, hit.score_edits(row, edition)),
            Err(_) => stripped,
        }
    }

    /// The text from the first hit to the last is made anew. What stood between two hits stays where
    /// it is and belongs to no hit; with fewer hits, the first of these gaps are used. A list that
    /// becomes empty looks as the engines print one: `[]`, or `[ ]` where they indent.
    fn list_edit(&self, hits: &[String]) -> Vec<Edit> {
        let (Some(first), Some(last)) = (self.hits.first(), self.hits.last()) else {
            return Vec::new();
        };
        if hits.is_empty() {
            let inner = self.list.span().start + 1..self.list.span().end - 1;
            let indented = inner.start < first.whole.span().start;
            let space = if indented { " " } else { "" };
            return vec![(inner, space.to_owned())];
        }
        let span = first.whole.span().start..last.whole.span().end;
        let gap = |slot: usize| {
            let before = self.hits[slot - 1].whole.span().end;
            &self.response.source()[before..self.hits[slot].whole.span().start]
        };
        let mut list = String::with_capacity(hits.iter().map(|hit| hit.len() + 2).sum());
        for (slot, hit) in hits.iter().enumerate() {
            if slot > 0 {
                list.push_str(gap(slot));
            }
            list.push_str(hit);
        }
        vec![(span, list)]
    }
}

/// What an answer has in place of what the engine sent.
pub(crate) struct Edition<'e> {
    /// The hits, top to bottom; each hit of the response at most once.
    pub(crate) rows: &'e [Row],
    /// The text for `hits.max_score`, where there is one; `None` leaves it.
    pub(crate) max_score: Option<String>,
    /// Whether each hit gives the engine's score as `fields._first_stage_score` too.
    pub(crate) keep_first_stage: bool,
    /// What to take out of each hit.
    pub(crate) strip: Option<&'e Strip>,
}

impl<'a> Hit<'a> {
    fn read(place: Place<'_>, whole: Json<'a>) -> Result<Self, RerankError> {
        place.expect(Kind::Object, whole)?;
        let mut hit = Self {
            whole,
            index: None,
            id: None,
            score: None,
            source: None,
            fields: None,
            is_sorted: false,
        };
        for (key, value) in whole.members() {
            match &*key {
                "_index" => hit.index = Some(value),
                "_id" => hit.id = Some(value),
                "_score" => hit.score = Some(value),
                "sort" => hit.is_sorted = true,
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

    /// What tells it from other hits: index and id, as they were sent.
    pub(crate) fn name(&self) -> (&'a str, &'a str) {
        let text = |part: Option<Json<'a>>| part.map_or("", Json::text);
        (text(self.index), text(self.id))
    }

    /// The engine's score, if there is one.
    pub(crate) fn score(&self) -> Option<f64> {
        Some(self.score?.number()?.to_f64())
    }

    fn score_edits(&self, row: &Row, edition: &Edition<'_>) -> Vec<Edit> {
        let mut edits = Vec::new();
        if let (Some(own), Some(new)) = (self.score, row.score) {
            edits.push((own.span(), number(new)));
        }
        if edition.keep_first_stage {
            edits.extend(self.first_stage_score());
        }
        edits
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

fn number(score: f64) -> String {
    String::from_utf8_lossy(&answer::to_json(&score)).into_owned()
}
