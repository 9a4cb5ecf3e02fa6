//! JSON text that is walked where it stands.
//!
//! [`parse`] checks the whole text once, with serde_json; everything after that is a walk over text
//! known to be JSON, which yields places in it ([`Json`]) instead of a tree. So a part that nobody
//! asks for costs no memory, is never printed again, and may be of any depth; numbers keep their
//! spelling; and a string with half of a surrogate pair, which engines store and return and no Rust
//! string can hold, is read with U+FFFD in its place instead of failing the request.
//!
//! Each level that is walked scans its text again. Readers therefore bound how deep they go.

use std::borrow::Cow;
use std::ops::Range;

use rerankd_core::{ErrorKind, RerankError};

/// How deep a value may be nested that is handed on as text. Readers behind it have limits of
/// their own (serde_json 128), and may put it into something of theirs.
pub(crate) const MAX_DEPTH: usize = 100;

/// One value in a text that is JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Json<'a> {
    source: &'a str,
    start: usize,
    end: usize,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

/// A finite number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// Written as an integer, and 64 signed bits hold it.
    Integer(i64),
    /// Any other.
    Float(f64),
}

impl Number {
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Float(float) => float,
        }
    }
}

/// What some writers put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Checks that `body` is JSON in UTF-8 and gives its one value. A byte order mark before it is skipped.
///
/// # Errors
/// `BadRequest` with the byte, or the line and column.
pub(crate) fn parse(body: &[u8]) -> Result<Json<'_>, RerankError> {
    let bad = |message: String| RerankError::new(ErrorKind::BadRequest, message);
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if is_utf_16(body) {
        return Err(bad("the body is UTF-16; expected JSON in UTF-8".to_owned()));
    }
    let source = std::str::from_utf8(body).map_err(|error| {
        bad(format!(
            "the body is not UTF-8: byte {} starts no character",
            error.valid_up_to()
        ))
    })?;
    if source.bytes().all(is_space) {
        return Err(bad("the body is empty; expected a JSON object".to_owned()));
    }
    // Not recursive, whatever the depth, and no opinion on surrogates or the size of numbers.
    serde_json::from_str::<serde::de::IgnoredAny>(source)
        .map_err(|error| bad(format!("the body is not JSON: {error}")))?;
    let start = source.bytes().position(|byte| !is_space(byte)).unwrap_or(0);
    let end = source.trim_end_matches([' ', '\t', '\n', '\r']).len();
    Ok(Json { source, start, end })
}

/// Whether a text is UTF-16: it has that mark, or every other of its first bytes is zero, as JSON begins
/// with ASCII (RFC 4627, section 3).
fn is_utf_16(body: &[u8]) -> bool {
    match body {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        &[a, b, c, d, ..] => {
            matches!([a == 0, b == 0, c == 0, d == 0], [x, y, z, w] if x != y && x == z && y == w)
        }
        _ => false,
    }
}

impl<'a> Json<'a> {
    pub(crate) fn kind(self) -> Kind {
        match self.source.as_bytes()[self.start] {
            b'n' => Kind::Null,
            b't' | b'f' => Kind::Boolean,
            b'"' => Kind::String,
            b'[' => Kind::Array,
            b'{' => Kind::Object,
            _ => Kind::Number,
        }
    }

    pub(crate) fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The text as it was sent.
    pub(crate) fn text(self) -> &'a str {
        &self.source[self.start..self.end]
    }

    /// The whole text that this value is a part of; spans count in it.
    pub(crate) fn source(self) -> &'a str {
        self.source
    }

    /// Where the value stands, in bytes of [`source`](Self::source).
    pub(crate) fn span(self) -> Range<usize> {
        self.start..self.end
    }

    /// The value of a string, lone surrogates replaced by U+FFFD.
    pub(crate) fn string(self) -> Option<Cow<'a, str>> {
        (self.kind() == Kind::String).then(|| {
            let inner = &self.source[self.start + 1..self.end - 1];
            if inner.contains('\\') {
                Cow::Owned(unescape(inner))
            } else {
                Cow::Borrowed(inner)
            }
        })
    }

    /// The value of a number; `None` also where 64 bits cannot hold it as a finite one.
    pub(crate) fn number(self) -> Option<Number> {
        if self.kind() != Kind::Number {
            return None;
        }
        if let Ok(integer) = self.text().parse() {
            return Some(Number::Integer(integer));
        }
        let float: f64 = self.text().parse().ok()?;
        float.is_finite().then_some(Number::Float(float))
    }

    pub(crate) fn boolean(self) -> Option<bool> {
        (self.kind() == Kind::Boolean).then(|| self.text() == "true")
    }

    /// The items of an array; none of anything else.
    pub(crate) fn items(self) -> impl Iterator<Item = Json<'a>> {
        self.walk(Kind::Array)
    }

    /// The members of an object, duplicates too; none of anything else.
    pub(crate) fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Json<'a>)> {
        self.entries()
            .filter_map(|(key, value)| Some((key.string()?, value)))
    }

    /// The members of an object with their keys as they stand.
    pub(crate) fn entries(self) -> impl Iterator<Item = (Json<'a>, Json<'a>)> {
        let mut walk = self.walk(Kind::Object);
        std::iter::from_fn(move || Some((walk.next()?, walk.next()?)))
    }

    /// The member of that name; the last one, as most readers have it.
    pub(crate) fn member(self, name: &str) -> Option<Json<'a>> {
        self.members()
            .filter(|(key, _)| key == name)
            .last()
            .map(|(_, value)| value)
    }

    fn walk(self, kind: Kind) -> Walk<'a> {
        let at = if self.kind() == kind {
            self.start + 1
        } else {
            self.source.len()
        };
        Walk {
            source: self.source,
            at,
        }
    }

    /// The value as text for other readers: as it was sent, but for lone surrogates.
    ///
    /// # Errors
    /// What is wrong with it: too deep, or with a number that is not finite.
    pub(crate) fn portable_text(self) -> Result<String, String> {
        self.check()?;
        let mut text = String::with_capacity(self.end - self.start);
        let mut rest = self.text();
        // A backslash in JSON is always the start of an escape in a string.
        while let Some(at) = rest.find('\\') {
            let (character, length) = escape(&rest[at..]);
            let (before, after) = rest.split_at(at + length);
            if character == char::REPLACEMENT_CHARACTER {
                text.push_str(&before[..at]);
                text.push_str("\\ufffd");
            } else {
                text.push_str(before);
            }
            rest = after;
        }
        text.push_str(rest);
        Ok(text)
    }

    fn check(self) -> Result<(), String> {
        let bytes = self.source.as_bytes();
        let (mut at, mut depth) = (self.start, 0_usize);
        while at < self.end {
            let next = match bytes[at] {
                b'[' | b'{' => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(format!("nested deeper than {MAX_DEPTH} levels"));
                    }
                    at + 1
                }
                b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    at + 1
                }
                b'"' => end_of_string(self.source, at),
                b'-' | b'0'..=b'9' => {
                    let end = end_of_word(bytes, at);
                    let number = Json {
                        source: self.source,
                        start: at,
                        end,
                    };
                    if number.number().is_none() {
                        return Err(not_finite(number));
                    }
                    end
                }
                _ => at + 1,
            };
            at = next;
        }
        Ok(())
    }
}

/// The sentence for a number that 64 bits cannot hold as a finite one.
pub(crate) fn not_finite(number: Json<'_>) -> String {
    format!("{} is too large for a 64-bit number", quoted(number.text()))
}

/// What a client typed, for a message: in backticks, on one line, and not too long.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown = String::new();
    for character in text.chars().take(LONGEST) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// Replaces the bytes of a range by a text.
pub(crate) type Edit = (Range<usize>, String);

/// The value's text with `edits`, whose ranges lie in it and apart from each other.
pub(crate) fn edited(json: Json<'_>, mut edits: Vec<Edit>) -> String {
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

/// The whole text that `root` stands in, with `edits`: also what stands around the value, such as the
/// line end behind it.
pub(crate) fn edited_around(root: Json<'_>, edits: Vec<Edit>) -> String {
    let whole = Json {
        start: 0,
        end: root.source.len(),
        ..root
    };
    edited(whole, edits)
}

/// What takes the members out of `object` whose keys are `unwanted`, each with one of the commas next
/// to it.
pub(crate) fn without(object: Json<'_>, unwanted: impl Fn(&str) -> bool) -> Vec<Edit> {
    let entries: Vec<(Json<'_>, Json<'_>)> = object.entries().collect();
    let mut edits = Vec::new();
    let mut kept = false;
    for (index, (key, value)) in entries.iter().enumerate() {
        if !key.string().is_some_and(|key| unwanted(&key)) {
            kept = true;
        } else if kept {
            edits.push((entries[index - 1].1.end..value.end, String::new()));
        } else {
            let next = entries
                .get(index + 1)
                .map_or(value.end, |next| next.0.start);
            edits.push((key.start..next, String::new()));
        }
    }
    edits
}

/// Yields the values of one array, or the keys and values of one object in turn.
struct Walk<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Json<'a>> {
        let bytes = self.source.as_bytes();
        // The text is JSON, so separators stand where they must and need no look.
        while bytes
            .get(self.at)
            .is_some_and(|&b| is_space(b) || b == b',' || b == b':')
        {
            self.at += 1;
        }
        let start = self.at;
        match bytes.get(start)? {
            b']' | b'}' => None,
            _ => {
                self.at = end_of_value(self.source, start);
                Some(Json {
                    source: self.source,
                    start,
                    end: self.at,
                })
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn end_of_value(source: &str, start: usize) -> usize {
    let bytes = source.as_bytes();
    match bytes[start] {
        b'"' => end_of_string(source, start),
        b'[' | b'{' => {
            let (mut at, mut depth) = (start, 0_usize);
            loop {
                match bytes.get(at) {
                    Some(b'"') => {
                        at = end_of_string(source, at);
                        continue;
                    }
                    Some(b'[' | b'{') => depth += 1,
                    Some(b']' | b'}') => depth -= 1,
                    Some(_) => {}
                    None => return at,
                }
                at += 1;
                if depth == 0 {
                    return at;
                }
            }
        }
        _ => end_of_word(bytes, start),
    }
}

/// Behind the closing quote of the string whose opening quote is at `start`.
fn end_of_string(source: &str, start: usize) -> usize {
    let mut from = start + 1;
    // Most of the text is in strings, and `find` is much faster than a loop over bytes.
    while let Some(length) = source[from..].find('"') {
        let at = from + length;
        let inner = source.as_bytes()[start + 1..at].iter();
        let backslashes = inner.rev().take_while(|&&byte| byte == b'\\').count();
        if backslashes.is_multiple_of(2) {
            return at + 1;
        }
        from = at + 1;
    }
    source.len()
}

/// Behind the number, `true`, `false` or `null` at `start`.
fn end_of_word(bytes: &[u8], start: usize) -> usize {
    let length = bytes[start..]
        .iter()
        .position(|&byte| is_space(byte) || matches!(byte, b',' | b']' | b'}'));
    length.map_or(bytes.len(), |length| start + length)
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (character, length) = escape(&rest[at..]);
        plain.push_str(&rest[..at]);
        plain.push(character);
        rest = &rest[at + length..];
    }
    plain.push_str(rest);
    plain
}

/// The character of the escape that `text` starts with, and how many bytes the escape takes.
fn escape(text: &str) -> (char, usize) {
    let character = match text.as_bytes().get(1) {
        Some(b'u') => return unicode_escape(text),
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(&itself) => char::from(itself),
        None => return (char::REPLACEMENT_CHARACTER, text.len()),
    };
    (character, 2)
}

fn unicode_escape(text: &str) -> (char, usize) {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(0) else {
        return (char::REPLACEMENT_CHARACTER, text.len());
    };
    let pair = [first, unit(6).unwrap_or(0)];
    match char::decode_utf16(pair).next() {
        Some(Ok(character)) => (character, 6 * character.len_utf16()),
        Some(Err(_)) | None => (char::REPLACEMENT_CHARACTER, 6),
    }
}
