//! Memory and table limits of one store.

use wasmtime::ResourceLimiter;

/// Largest table, elements.
const MAX_TABLE_ELEMENTS: usize = 20_000;

/// Refuses growth beyond a policy's memory, and remembers that it did.
#[derive(Debug)]
pub(crate) struct GuestLimiter {
    memory_bytes: usize,
    /// Whether growth was refused: what follows is a memory fault, whatever it looks like.
    pub(crate) refused: bool,
    /// The most memory that was ever in use, bytes.
    pub(crate) peak_bytes: usize,
}

impl GuestLimiter {
    pub(crate) fn new(memory_bytes: usize) -> Self {
        Self {
            memory_bytes,
            refused: false,
            peak_bytes: 0,
        }
    }
}

impl ResourceLimiter for GuestLimiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.memory_bytes {
            self.refused = true;
            return Ok(false);
        }
        self.peak_bytes = self.peak_bytes.max(desired);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }
}
