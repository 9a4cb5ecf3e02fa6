//! What a policy sees of a hit: the leaves of `_source`, and the `fields` section.
//!
//! - A nested object's leaves have the path as their name: `{"brand": {"name": "x"}}` is
//!   `brand.name`. An array's values belong to the name of the array, also through arrays of objects,
//!   as in the engine's own mappings: `{"variants": [{"size": 38}, {"size": 39}]}` is
//!   `variants.size` with two numbers.
//! - A name with one value that stands in no array is a scalar. Several are texts or numbers where
//!   they are all of that kind, else the text of a JSON array. A key that stands twice in one object
//!   has all its values, as in an array. The engines give every value of
//!   `fields` as an array; there, an array of one is a scalar.
//! - Left out: nulls, numbers that 64 bits cannot hold as finite ones, what lies deeper than
//!   [`MAX_DEPTH`], names longer than [`MAX_NAME_BYTES`], names after the first [`MAX_NAMES`], and
//!   those after which all names would have [`MAX_NAMES_TIMES`] the bytes of the hit.

use std::collections::HashMap;

use rerankd_core::{Document, Field, Value};

use super::page::Hit;
use crate::json::{Json, Kind};
use crate::value;

/// The engines' own default for mappings (`index.mapping.depth.limit`).
const MAX_DEPTH: usize = 20;

/// The engines' own default for an index (`index.mapping.total_fields.limit`).
const MAX_NAMES: usize = 1000;

/// A name stands in memory once for each of its leaves, but in the request perhaps once for all.
const MAX_NAME_BYTES: usize = 256;

/// Half of what ARCHITECTURE.md grants a body.
const MAX_NAMES_TIMES: usize = 8;

/// The hit as a document, without its first-stage score.
pub(crate) fn document(hit: &Hit<'_>) -> Document {
    let mut leaves = Leaves {
        room: MAX_NAMES_TIMES * hit.whole.text().len(),
        ..Leaves::default()
    };
    if let Some(source) = hit.source {
        leaves.add(source, 0, false);
    }
    let from_source = leaves.leaves.len();
    if let Some(section) = hit.fields {
        leaves.start_section();
        leaves.add(section, 0, false);
    }
    let fields = leaves.leaves.into_iter().enumerate();
    Document {
        id: hit.id.and_then(Json::string).map(|id| id.into_owned()),
        first_stage_score: None,
        fields: fields
            .filter_map(|(index, leaf)| leaf.field(index >= from_source))
            .collect(),
    }
}

/// Leaves by name, in the order in which their names were first met.
#[derive(Default)]
struct Leaves<'a> {
    leaves: Vec<Leaf<'a>>,
    by_name: HashMap<String, usize>,
    /// The leaf that was used last: often the next one too, in an array.
    latest: usize,
    /// Leaves before this one take no more values.
    section_start: usize,
    path: String,
    /// Bytes of names that may still come.
    room: usize,
}

struct Leaf<'a> {
    name: String,
    values: Vec<Json<'a>>,
    in_array: bool,
}

impl<'a> Leaves<'a> {
    /// From here on, names that are already there are left alone.
    fn start_section(&mut self) {
        self.section_start = self.leaves.len();
    }

    fn add(&mut self, value: Json<'a>, depth: usize, in_array: bool) {
        if depth > MAX_DEPTH {
            return;
        }
        match value.kind() {
            Kind::Null => {}
            Kind::Object => {
                let parent = self.path.len();
                for (key, value) in value.members() {
                    if parent + key.len() < MAX_NAME_BYTES {
                        if parent > 0 {
                            self.path.push('.');
                        }
                        self.path.push_str(&key);
                        self.add(value, depth + 1, in_array);
                        self.path.truncate(parent);
                    }
                }
            }
            Kind::Array => {
                let mut empty = true;
                for item in value.items() {
                    empty = false;
                    self.add(item, depth + 1, true);
                }
                if empty {
                    self.leaf(true);
                }
            }
            Kind::Number if value.number().is_none() => {}
            Kind::Boolean | Kind::Number | Kind::String => {
                if let Some(leaf) = self.leaf(in_array) {
                    leaf.values.push(value);
                }
            }
        }
    }

    /// The leaf at the current path, unless an earlier section has it or there is no room.
    fn leaf(&mut self, in_array: bool) -> Option<&mut Leaf<'a>> {
        if self
            .leaves
            .get(self.latest)
            .is_none_or(|latest| latest.name != self.path)
        {
            self.latest = match self.by_name.get(&self.path) {
                Some(&index) => index,
                None if self.leaves.len() == MAX_NAMES || self.path.len() > self.room => {
                    return None;
                }
                None => {
                    self.room -= self.path.len();
                    let name = self.path.clone();
                    self.by_name.insert(name.clone(), self.leaves.len());
                    self.leaves.push(Leaf {
                        name,
                        values: Vec::new(),
                        in_array,
                    });
                    self.leaves.len() - 1
                }
            };
        }
        if self.latest < self.section_start {
            return None;
        }
        self.leaves.get_mut(self.latest)
    }
}

impl Leaf<'_> {
    fn field(self, one_is_scalar: bool) -> Option<Field> {
        let value = match *self.values {
            [one] if one_is_scalar || !self.in_array => value::scalar(one)?,
            ref values => {
                value::list(|| values.iter().copied()).unwrap_or_else(|| json_array(values))
            }
        };
        Some(Field {
            name: self.name,
            value,
        })
    }
}

fn json_array(values: &[Json<'_>]) -> Value {
    let texts = values.iter().filter_map(|value| value.portable_text().ok());
    Value::Json(format!("[{}]", texts.collect::<Vec<_>>().join(",")))
}
