//! The text that was searched for.
