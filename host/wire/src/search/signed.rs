//! Searches whose body the client has signed.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use super::url::Params;

/// Headers that tell of a body's digest, or of a signature over it.
const SIGNATURES: [&str; 7] = [
    "content-digest",
    "content-md5",
    "digest",
    "repr-digest",
    "signature",
    "signature-input",
    "x-amz-content-sha256",
];

/// Whether the client has signed what it sends, as AWS' services want it: another body would be refused.
pub(super) fn is_signed(headers: &HeaderMap, params: &Params<'_>) -> bool {
    let is_aws = |value: &HeaderValue| {
        value
            .as_bytes()
            .get(..5)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"AWS4-"))
    };
    headers.get_all(AUTHORIZATION).iter().any(is_aws)
        || SIGNATURES.iter().any(|name| headers.contains_key(*name))
        || params
            .iter()
            .any(|param| param.name.eq_ignore_ascii_case("X-Amz-Signature"))
}
