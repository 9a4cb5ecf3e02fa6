//! The words of a query string, where it says nothing else: operators, wildcards and ranges have no
//! text that could be read as one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// In which language a query string is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// `query_string` and `q`.
    QueryString,
    /// `simple_query_string`.
    Simple,
}

/// Words that are searched for in one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    /// The field that stands before them (`title:watch`); `None` where none does.
    pub(super) field: Option<String>,
    /// The words, without escapes, with one space between two.
    pub(super) text: String,
}

/// The words of a query string by field, in the order in which the fields are met; `None` where it has
/// operators. Words in fields of the engine's own (`_exists_:price`) are no text and left out.
pub(super) fn words(query: &str, syntax: Syntax) -> Option<Vec<Words>> {
    let mut all: Vec<Words> = Vec::new();
    let mut places: HashMap<Option<String>, usize> = HashMap::new();
    let mut field: Option<String> = None;
    for raw in split(query) {
        let word = Word::read(raw, syntax)?;
        if let Some(name) = word.field {
            if field.is_some() {
                return None;
            }
            field = Some(name);
        }
        if word.text.is_empty() {
            // `title: watch`
            continue;
        }
        let field = field.take();
        if field.as_ref().is_some_and(|name| name.starts_with('_')) {
            continue;
        }
        match places.entry(field) {
            Entry::Occupied(place) => {
                let words = &mut all[*place.get()];
                words.text.push(' ');
                words.text.push_str(&word.text);
            }
            Entry::Vacant(place) => {
                let field = place.key().clone();
                place.insert(all.len());
                all.push(Words {
                    field,
                    text: word.text,
                });
            }
        }
    }
    field.is_none().then_some(all)
}

/// Parts a text at the white space that is not escaped.
fn split(query: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, character) in query.char_indices() {
        if character.is_whitespace() && !escaped {
            words.push(&query[start..at]);
            start = at + character.len_utf8();
        }
        escaped = character == '\\' && !escaped;
    }
    words.push(&query[start..]);
    words.retain(|word| !word.is_empty());
    words
}

struct Word {
    field: Option<String>,
    text: String,
}

impl Word {
    /// `None` where the word is more than a word.
    fn read(raw: &str, syntax: Syntax) -> Option<Self> {
        const QUERY_STRING: &[char] = &[
            '"', '(', ')', '^', '~', '*', '?', '[', ']', '{', '}', '/', '<', '>',
        ];
        const SIMPLE: &[char] = &['"', '(', ')', '~', '*', '|', '+'];
        let (operators, pairs, words): (&[char], &[&str], &[&str]) = match syntax {
            Syntax::QueryString => (QUERY_STRING, &["&&", "||"], &["AND", "OR", "NOT", "TO"]),
            Syntax::Simple => (SIMPLE, &[], &[]),
        };
        let is_signed = |part: &str| {
            part.starts_with(['+', '-', '!']) && (part.len() > 1 || syntax == Syntax::Simple)
        };
        if words.contains(&raw) || is_signed(raw) || pairs.iter().any(|pair| raw.contains(pair)) {
            return None;
        }
        let mut word = Self {
            field: None,
            text: String::new(),
        };
        let mut characters = raw.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => word.text.push(characters.next()?.1),
                ':' if syntax == Syntax::QueryString => {
                    let name = std::mem::take(&mut word.text);
                    let rest = &raw[at + 1..];
                    if word.field.is_some() || name.is_empty() || rest.starts_with(['+', '-', '!'])
                    {
                        return None;
                    }
                    word.field = Some(name);
                }
                _ if operators.contains(&character) => return None,
                _ => word.text.push(character),
            }
        }
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words as `field:text`, or `-` where there are operators.
    fn shown(query: &str, syntax: Syntax) -> String {
        let Some(all) = words(query, syntax) else {
            return "-".to_owned();
        };
        let one = |words: Words| match words.field {
            Some(field) => format!("{field}:{}", words.text),
            None => words.text,
        };
        all.into_iter().map(one).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn a_query_string_of_many_fields_is_read_in_one_pass() {
        // Comparing each with each would take minutes.
        let query: String = (0..300_000).map(|n| format!("field{n}:x ")).collect();
        let all = words(&query, Syntax::QueryString).expect("it has no operators");
        assert_eq!(all.len(), 300_000);
        assert_eq!(all[7].field.as_deref(), Some("field7"));
    }

    #[test]
    fn escapes_and_fields_are_read_and_operators_are_none_of_our_business() {
        let cases = [
            ("running shoes", "running shoes"),
            (r"wi\-fi running shoes", "wi-fi running shoes"),
            (r"what is this\?", "what is this?"),
            (r"\+plus \(x\)", "+plus (x)"),
            (r"two\ words", "two words"),
            ("title:watch", "title:watch"),
            ("title:watch title:strap", "title:watch strap"),
            ("title: watch", "title:watch"),
            ("title:watch brand:acme", "title:watch | brand:acme"),
            ("title:smart watch", "title:smart | watch"),
            (r"title\:watch", "title:watch"),
            ("_exists_:price shoe", "shoe"),
            ("_id:5", ""),
            ("", ""),
            ("a - b", "a - b"),
            ("wi-fi", "wi-fi"),
            ("title:", "-"),
            (":watch", "-"),
            ("a:b:c", "-"),
            ("a: b:c", "-"),
            ("price:-5", "-"),
            (r"end\", "-"),
            ("title:(a b)", "-"),
            ("a AND b", "-"),
            ("a && b", "-"),
            ("wat*", "-"),
            ("-a b", "-"),
            ("\"a b\"", "-"),
        ];
        for (query, expected) in cases {
            assert_eq!(shown(query, Syntax::QueryString), expected, "{query}");
        }
        let cases = [
            ("title:watch", "title:watch"),
            (r"wi\-fi", "wi-fi"),
            ("a AND b", "a AND b"),
            ("a -b", "-"),
            ("a | b", "-"),
            ("a - b", "-"),
        ];
        for (query, expected) in cases {
            assert_eq!(shown(query, Syntax::Simple), expected, "{query}");
        }
    }
}
