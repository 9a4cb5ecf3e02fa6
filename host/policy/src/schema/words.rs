//! The words of messages about values: little of a value is shown, however large it is.

use serde_json::Value;

use super::equal::is_integer;

/// Longest part of a value in a message, bytes.
pub(super) const SHOWN_BYTES: usize = 200;

/// Options of an `enum` in a message.
const SHOWN_OPTIONS: usize = 3;

/// Kinds of values, a bit each.
pub(super) mod kinds {
    use serde_json::Value;

    /// By name, as messages list them.
    pub(crate) const NAMES: [(&str, u8); 7] = [
        ("array", 1),
        ("boolean", 2),
        ("integer", 4),
        ("null", 8),
        ("number", 16),
        ("object", 32),
        ("string", 64),
    ];

    pub(crate) fn from_name(name: &str) -> Option<u8> {
        let found = NAMES.iter().find(|(own, _)| *own == name);
        found.map(|(_, bit)| *bit)
    }

    /// All that a value is.
    pub(crate) fn of(value: &Value) -> u8 {
        match value {
            Value::Array(_) => 1,
            Value::Bool(_) => 2,
            Value::Null => 8,
            Value::Number(number) if super::is_integer(number) => 4 | 16,
            Value::Number(_) => 16,
            Value::Object(_) => 32,
            Value::String(_) => 64,
        }
    }
}

pub(super) fn unexpected(what: &str, name: &str) -> String {
    format!("{what} are not allowed ('{}' was unexpected)", cut(name))
}

pub(super) fn type_names(types: u8) -> String {
    let names = kinds::NAMES.iter().filter(|(_, bit)| types & bit != 0);
    let names: Vec<String> = names.map(|(name, _)| format!("\"{name}\"")).collect();
    let word = if names.len() == 1 { "type" } else { "types" };
    format!("{word} {}", names.join(", "))
}

pub(super) fn counted(count: u64, one: &str, several: &str) -> String {
    let what = if count == 1 { one } else { several };
    format!("{count} {what}")
}

pub(super) fn listed(options: &[Value]) -> String {
    let many = options.len() > SHOWN_OPTIONS;
    let shown_options = if many {
        SHOWN_OPTIONS - 1
    } else {
        options.len()
    };
    let mut text = String::new();
    for (index, option) in options.iter().take(shown_options).enumerate() {
        text.push_str(match index {
            0 => "",
            _ if index + 1 == options.len() => " or ",
            _ => ", ",
        });
        text.push_str(&shown(option, SHOWN_BYTES / SHOWN_OPTIONS));
    }
    if many {
        let more = options.len() - shown_options;
        text.push_str(&format!(" or {more} other candidates"));
    }
    text
}

pub(super) fn cut(text: &str) -> &str {
    crate::imports::log::cut(text, SHOWN_BYTES)
}

/// A value as JSON, at most so many bytes of it: the rest is not even written.
pub(crate) fn shown(value: &Value, most: usize) -> String {
    struct Head {
        text: Vec<u8>,
        most: usize,
    }
    impl std::io::Write for Head {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let room = self.most - self.text.len();
            if room == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(room);
            self.text.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let text = Vec::with_capacity(most.min(64));
    let mut head = Head { text, most };
    let is_whole = serde_json::to_writer(&mut head, value).is_ok();
    let text = String::from_utf8_lossy(&head.text);
    if is_whole {
        return text.into_owned();
    }
    // A character may have been cut in two.
    format!("{}…", text.trim_end_matches('\u{fffd}'))
}
