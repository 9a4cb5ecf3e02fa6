//! `rerank:policy/log`: what a guest says, kept apart from the host's log.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmStr};

use crate::bindings::contract::log::{Host, Level};
use crate::imports::GuestState;

/// The lines of one call, bounded in number and length.
#[derive(Debug)]
pub struct GuestLog {
    lines: Vec<String>,
    dropped: usize,
    max_lines: usize,
    max_line_bytes: usize,
    pub(crate) panic: Option<GuestPanic>,
}

/// Why the guest said that it is about to trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestPanic {
    pub(crate) message: String,
    pub(crate) file: String,
    pub(crate) line: u32,
}

impl GuestLog {
    pub(crate) fn new(max_lines: usize, max_line_bytes: usize) -> Self {
        Self {
            lines: Vec::new(),
            dropped: 0,
            max_lines,
            max_line_bytes,
            panic: None,
        }
    }

    /// The kept lines, each with its level in front.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Most lines that are kept.
    pub(crate) fn max_lines(&self) -> usize {
        self.max_lines
    }

    /// Longest line that is kept, bytes.
    pub(crate) fn max_line_bytes(&self) -> usize {
        self.max_line_bytes
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= self.max_lines
    }

    fn push(&mut self, level: Level, message: &str) {
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        if self.is_full() {
            self.dropped += 1;
        } else {
            self.lines
                .push(format!("{level} {}", words(message, self.max_line_bytes)));
        }
    }
}

/// Links `log` anew, with its message where it lies in the guest's memory: what is not kept is not
/// copied, and a line that is dropped is not read.
pub(crate) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("rerank:policy/log@0.1.0")?.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, GuestState>, (level, message): (Level, WasmStr)| {
            let state = store.data_mut();
            state.enter()?;
            if state.log.is_full() {
                state.log.push(level, "");
                return Ok(());
            }
            let longest = state.log.max_line_bytes;
            let message = cut(&message.to_str(&store)?, longest).to_owned();
            store.data_mut().log.push(level, &message);
            Ok(())
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Host for GuestState {
    /// Shadowed by `link`.
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.enter()?;
        self.log.push(level, &message);
        Ok(())
    }

    fn panicked(&mut self, message: String, file: String, line: u32) -> wasmtime::Result<()> {
        self.enter()?;
        let longest = self.log.max_line_bytes;
        self.log.panic = Some(GuestPanic {
            message: words(&message, longest),
            file: words(&file, longest),
            line,
        });
        Ok(())
    }
}

/// The longest head of `text` that has at most `bytes` bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// What a policy says, as it is kept and shown: at most `bytes` bytes, and no control characters but
/// tabs and line breaks, each of which would be six bytes in JSON, and may drive a terminal.
pub(crate) fn words(text: &str, bytes: usize) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    let mut kept: String = cut(text, bytes).chars().map(shown).collect();
    kept.truncate(kept.floor_char_boundary(bytes));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_short_and_drive_no_terminal() {
        assert_eq!(words("a\tb\nc", 100), "a\tb\nc");
        assert_eq!(words("\u{1b}[2J\u{9b}", 100), "\u{fffd}[2J\u{fffd}");
        assert_eq!(words("für", 2), "f");
        let kept = words(&"\u{1}".repeat(1 << 20), 1024);
        assert_eq!(kept.len(), 1023);
        assert_eq!(
            serde_json::to_string(&kept).map(|json| json.len()).ok(),
            Some(1025)
        );
    }
}
