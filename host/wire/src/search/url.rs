//! The raw query of a URL: read where it stands, so that what is not ours goes on as it came.

use percent_encoding::percent_decode_str;

/// A path's segment without its percent signs; `None` where it is not UTF-8.
pub(super) fn decoded(segment: &str) -> Option<String> {
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    Some(decoded.into_owned())
}
