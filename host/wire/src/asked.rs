//! What rerank APIs share in reading a request: a query, documents, a model's name, how many results,
//! what becomes of long texts (`cuts`), and rerankd's own options (`own`).
//!
//! `null` is the default everywhere, and unknown keys are no error: clients send what other servers
//! know.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use rerankd_core::{Document, RerankError, RerankRequest};

use crate::cuts::Cuts;
use crate::decode::Place;
use crate::json::{self, Json, Kind, quoted};
use crate::own::Options;
use crate::{Call, Target, answer, lax, value};

/// A request that was read.
pub(crate) struct Asked<'a> {
    /// What to rerank.
    pub(crate) request: RerankRequest,
    /// What the body calls a model.
    pub(crate) model: Option<String>,
    /// Whether documents are to come back; `None` where the body does not say.
    pub(crate) return_documents: Option<bool>,
    /// The documents as they came.
    pub(crate) documents: Documents<'a>,
    /// What is to become of texts that do not fit.
    pub(crate) cuts: Cuts,
}

/// How a protocol spells its request.
pub(crate) struct Form {
    /// The key of the documents.
    pub(crate) documents: &'static str,
    /// Whether documents are strings, and nothing else.
    pub(crate) texts_only: bool,
    /// Whether the answer has a place for explanations.
    pub(crate) explains: bool,
}

/// The usual spelling.
pub(crate) const USUAL: Form = Form {
    documents: "documents",
    texts_only: false,
    explains: false,
};

/// Reads a body. `take` gets each key that is not null, and says whether it took it; the others are
/// read as everywhere.
///
/// # Errors
/// `BadRequest`, `Empty` or `TooLarge` with the place.
pub(crate) fn read<'a>(
    call: &Call<'a>,
    form: &Form,
    take: impl FnMut(&str, Place<'_>, Json<'a>) -> Result<bool, RerankError>,
) -> Result<Asked<'a>, RerankError> {
    let body = json::parse(call.body)?;
    Place::Body.expect(Kind::Object, body)?;
    read_members(call, form, body.members(), take)
}

/// The same for members of which some may stand deeper in the body.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_members<'a>(
    call: &Call<'a>,
    form: &Form,
    members: impl Iterator<Item = (Cow<'a, str>, Json<'a>)>,
    mut take: impl FnMut(&str, Place<'_>, Json<'a>) -> Result<bool, RerankError>,
) -> Result<Asked<'a>, RerankError> {
    let mut request = RerankRequest::new("", Vec::new());
    let (mut query, mut documents, mut rank_fields, mut model) = (None, None, None, None);
    let (mut own, mut shared) = (Options::default(), Shared::default());
    for (key, value) in members {
        let place = Place::Body.key(&key);
        if value.is_null()
            || take(&key, place, value)?
            || own.take(&key, value)
            || shared.take(&key, place, value)?
        {
            continue;
        }
        match &*key {
            "query" => query = Some(value),
            "model" => model = name(place, value)?,
            // An empty list names none, as a missing one does.
            "rank_fields" if value.kind() == Kind::Array && value.items().next().is_none() => {
                rank_fields = None;
            }
            "rank_fields" => rank_fields = Some(place.field_names(value)?),
            key if key == form.documents => documents = Some(value),
            _ => {}
        }
    }
    if let Some(parameters) = own.finish(&mut request, form.explains)? {
        shared.take_all(Place::Body.key("parameters"), parameters)?;
    }
    request.top_n = shared.top_n;
    let place = Place::Body.key("query");
    let query = query.ok_or_else(|| place.missing("the text that was searched for"))?;
    request.query = text_of_query(place, query)?;
    let place = Place::Body.key(form.documents);
    let sent = documents.ok_or_else(|| place.missing("an array of documents"))?;
    let documents = Documents::read(place, sent, rank_fields.unwrap_or_default(), form, call)?;
    request.documents = documents.to_core(form)?;
    request.fields = documents.fields()?;
    Ok(Asked {
        request,
        model,
        return_documents: shared.return_documents,
        documents,
        cuts: shared.cuts,
    })
}

/// Keys that mean the same wherever they stand.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) top_n: Option<usize>,
    pub(crate) return_documents: Option<bool>,
    pub(crate) cuts: Cuts,
}

impl Shared {
    /// Takes the value of a key that is one of them; false where it is none.
    ///
    /// # Errors
    /// `BadRequest` at `place`.
    fn take(&mut self, key: &str, place: Place<'_>, value: Json<'_>) -> Result<bool, RerankError> {
        match key {
            // Voyage's word for it.
            "top_n" | "top_k" => self.top_n = top(place, value)?,
            "return_documents" => self.return_documents = Some(lax::boolean(place, value)?),
            key => return self.cuts.take(key, place, value),
        }
        Ok(true)
    }

    /// Takes what an object has of them.
    ///
    /// # Errors
    /// `BadRequest` with the place in it; also where it is no object.
    pub(crate) fn take_all(
        &mut self,
        place: Place<'_>,
        object: Json<'_>,
    ) -> Result<(), RerankError> {
        place.expect(Kind::Object, object)?;
        for (key, value) in object.members().filter(|(_, value)| !value.is_null()) {
            self.take(&key, place.key(&key), value)?;
        }
        Ok(())
    }
}

impl Asked<'_> {
    /// Who shall rerank.
    pub(crate) fn target(&self) -> Target {
        Target::Named(self.model.clone())
    }
}

/// A name; an empty one is none.
pub(crate) fn name(place: Place<'_>, value: Json<'_>) -> Result<Option<String>, RerankError> {
    Ok(Some(place.string(value)?).filter(|name| !name.is_empty()))
}

/// How many results; 0 is all of them.
pub(crate) fn top(place: Place<'_>, value: Json<'_>) -> Result<Option<usize>, RerankError> {
    const WANTED: &str = "an integer of at least 1, or 0 for all";
    match lax::integer(place, value, WANTED)? {
        0 => Ok(None),
        count @ 1.. => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
        _ => Err(place.expected(WANTED, value)),
    }
}

/// A query: a string, `{"text": ".."}`, or parts of which only text can be ranked.
pub(crate) fn text_of_query(place: Place<'_>, json: Json<'_>) -> Result<String, RerankError> {
    let text = match json.kind() {
        Kind::Object => text_of_object(place, json)?,
        _ => place.string(json)?,
    };
    if text.trim().is_empty() {
        return Err(place.empty("empty; expected the text that was searched for"));
    }
    Ok(text)
}

/// The text of `{"text": ".."}` or `{"content": [{"type": "text", "text": ".."}]}`.
fn text_of_object(place: Place<'_>, json: Json<'_>) -> Result<String, RerankError> {
    if let Some(text) = json.member("text") {
        return place.key("text").string(text);
    }
    let Some(parts) = json.member("content") else {
        return Err(
            place.error("only text can be ranked; expected a string or an object with `text`")
        );
    };
    let place = place.key("content");
    if let Kind::String = parts.kind() {
        return place.string(parts);
    }
    place.expect(Kind::Array, parts)?;
    let texts = parts.items().enumerate().map(|(index, part)| {
        let place = place.item(index);
        let text = part
            .member("text")
            .ok_or_else(|| place.error("only text can be ranked; expected a part with `text`"))?;
        place.key("text").string(text)
    });
    Ok(texts.collect::<Result<Vec<String>, _>>()?.join(" "))
}

/// One text: a string, or an object as [`text_of_object`] reads it.
pub(crate) fn text(place: Place<'_>, json: Json<'_>) -> Result<String, RerankError> {
    match json.kind() {
        Kind::Object => text_of_object(place, json),
        _ => place.string(json),
    }
}

/// Refuses a list of none, or of too many.
pub(crate) fn check_count(
    place: Place<'_>,
    count: usize,
    call: &Call<'_>,
) -> Result<(), RerankError> {
    let most = call.limits.max_documents;
    if count == 0 {
        return Err(place.empty("empty; expected at least one"));
    }
    if count > most {
        return Err(place.too_large(format_args!(
            "{count} documents are more than the limit of {most} (`--max-documents`)"
        )));
    }
    Ok(())
}

/// Documents as they came, to be sent back.
pub(crate) struct Documents<'a> {
    sent: Vec<Json<'a>>,
    /// Whether they stand under `content` (vLLM's way to send several things at once).
    wrapped: bool,
    /// Those that make the text of a document without `text`.
    rank_fields: Vec<String>,
    /// The position of each in `rank_fields`.
    rank_positions: HashMap<String, usize>,
}

impl<'a> Documents<'a> {
    fn read(
        place: Place<'_>,
        json: Json<'a>,
        rank_fields: Vec<String>,
        form: &Form,
        call: &Call<'_>,
    ) -> Result<Self, RerankError> {
        let wrapped = match json.kind() {
            Kind::Object if !form.texts_only => json.member("content"),
            _ => None,
        };
        let inner = place.key("content");
        let place = if wrapped.is_some() { inner } else { place };
        let items = wrapped.unwrap_or(json);
        place.expect(Kind::Array, items)?;
        check_count(place, items.items().count(), call)?;
        Ok(Self {
            sent: items.items().collect(),
            wrapped: wrapped.is_some(),
            rank_positions: rank_fields.iter().cloned().zip(0..).collect(),
            rank_fields,
        })
    }

    fn to_core(&self, form: &Form) -> Result<Vec<Document>, RerankError> {
        let outer = Place::Body.key(form.documents);
        let inner = outer.key("content");
        let place = if self.wrapped { inner } else { outer };
        let documents = self.sent.iter().enumerate().map(|(index, &item)| {
            let place = place.item(index);
            if form.texts_only {
                return place.string(item).map(Document::from_text);
            }
            document(place, item, &self.rank_fields)
        });
        documents.collect()
    }

    /// The fields that documents shall be ranked by, if the caller named any.
    fn fields(&self) -> Result<Option<Vec<String>>, RerankError> {
        let is_text = |json: &Json<'_>| json.kind() == Kind::String;
        if self.rank_fields.is_empty() || self.sent.iter().all(is_text) {
            return Ok(None);
        }
        let place = Place::Body.key("rank_fields");
        let mut known = vec![false; self.rank_fields.len()];
        for (key, _) in self.sent.iter().flat_map(|sent| sent.members()) {
            if let Some(&position) = self.rank_positions.get(&*key) {
                known[position] = true;
            }
        }
        if let Some(index) = known.iter().position(|known| !known) {
            let problem = format!(
                "no document has a field {}",
                quoted(&self.rank_fields[index])
            );
            return Err(place.item(index).error(problem));
        }
        let mut fields = self.rank_fields.clone();
        if self.sent.iter().any(is_text) && !fields.iter().any(|name| name == "text") {
            fields.push("text".to_owned());
        }
        Ok(Some(fields))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    /// A document as JSON text, as an object with at least `text`; one that had `text` is as it was sent.
    pub(crate) fn object(&self, index: usize) -> String {
        let sent = self.sent[index];
        if sent.kind() != Kind::Object {
            return format!("{{\"text\":{}}}", sent.text());
        }
        if sent.member("text").is_some_and(|text| !text.is_null()) {
            return sent.text().to_owned();
        }
        let mut object = format!("{{\"text\":{}", self.text(index));
        for (key, value) in sent.members().filter(|(key, _)| key != "text") {
            object.push(',');
            object.push_str(&string(&key));
            object.push(':');
            object.push_str(value.text());
        }
        object.push('}');
        object
    }

    /// A document as JSON text, as it was sent.
    pub(crate) fn sent(&self, index: usize) -> &'a str {
        self.sent[index].text()
    }

    /// A document's text as a JSON string: the document where it is a string, else its `text`, else its
    /// parts, else the fields that count, joined by spaces.
    pub(crate) fn text(&self, index: usize) -> Cow<'_, str> {
        let sent = self.sent[index];
        match own_text(sent).unwrap_or(sent) {
            text if text.kind() == Kind::String => Cow::Borrowed(text.text()),
            object if object.kind() == Kind::Object => Cow::Owned(string(&self.joined(index))),
            other => Cow::Owned(string(&printed(other))),
        }
    }

    fn joined(&self, index: usize) -> String {
        let sent = self.sent[index];
        if sent.member("content").is_some() && self.rank_fields.is_empty() {
            // It was read so before.
            return text_of_object(Place::Body, sent).unwrap_or_default();
        }
        // Of a key that stands twice the last counts.
        let mut found = BTreeMap::new();
        for (key, value) in sent.members() {
            if let Some(&position) = self.rank_positions.get(&*key) {
                found.insert(position, value);
            }
        }
        let texts = found.values().map(|value| printed(*value));
        texts.collect::<Vec<_>>().join(" ")
    }
}

/// What a document has as `text`, unless that is null or an object.
fn own_text(document: Json<'_>) -> Option<Json<'_>> {
    let text = document.member("text")?;
    (!matches!(text.kind(), Kind::Null | Kind::Object)).then_some(text)
}

/// A value as text, as policies read it: a list of texts joined by spaces.
fn printed(value: Json<'_>) -> Cow<'_, str> {
    if let Some(text) = value.string() {
        return text;
    }
    let parts: Option<Vec<_>> = value.items().map(Json::string).collect();
    match parts.filter(|parts| !parts.is_empty()) {
        Some(parts) => Cow::Owned(parts.join(" ")),
        None => Cow::Borrowed(value.text()),
    }
}

fn string(text: &str) -> String {
    String::from_utf8_lossy(&answer::to_json(&text)).into_owned()
}

fn document(
    place: Place<'_>,
    json: Json<'_>,
    rank_fields: &[String],
) -> Result<Document, RerankError> {
    if let Some(text) = json.string() {
        return Ok(Document::from_text(text));
    }
    if json.kind() != Kind::Object {
        return Err(place.expected("a string or an object with `text`", json));
    }
    let has = |name: &str| json.member(name).is_some();
    if has("text") || !rank_fields.is_empty() {
        return Ok(Document {
            fields: value::fields(place, json)?,
            ..Document::default()
        });
    }
    if has("content") {
        return text_of_object(place, json).map(Document::from_text);
    }
    if has("image") || has("image_url") {
        return Err(
            place.error("only text can be ranked; expected a string or an object with `text`")
        );
    }
    Err(place
        .error("expected an object with `text`, or `rank_fields` to name the fields that count"))
}
