//! How the text that the policy reads gets into the hits, and out again.
