//! `rerank:policy/log`: what a guest says, kept apart from the host's log.

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

    fn push(&mut self, level: &str, message: &str) {
        if self.lines.len() < self.max_lines {
            self.lines
                .push(format!("{level} {}", cut(message, self.max_line_bytes)));
        } else {
            self.dropped += 1;
        }
    }
}

impl Host for GuestState {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        self.log.push(level, &message);
        Ok(())
    }

    fn panicked(&mut self, message: String, file: String, line: u32) -> wasmtime::Result<()> {
        let longest = self.log.max_line_bytes;
        self.log.panic = Some(GuestPanic {
            message: cut(&message, longest).to_owned(),
            file: cut(&file, longest).to_owned(),
            line,
        });
        Ok(())
    }
}

/// The longest head of `text` that has at most `bytes` bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
