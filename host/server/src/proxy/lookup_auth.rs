//! The credentials of `--upstream-lookup-auth`: what look-ups say who they are, and nothing else does.

use std::path::{Path, PathBuf};

use http::HeaderValue;

use crate::fresh::{Fresh, Lapse};
use crate::secret_file::{self, Group};

/// Largest file, bytes.
const MOST_BYTES: u64 = 16 << 10;

/// Reads the file, and again when it changes.
///
/// # Errors
/// A sentence that names the file, what is wrong and what would be right.
pub(super) fn open(file: &Path) -> Result<Fresh<HeaderValue>, String> {
    let path: PathBuf = file.to_owned();
    let load = move || {
        let read = secret_file::read(&path, Group::Reads, MOST_BYTES);
        read.and_then(|bytes| value(&bytes))
            .map_err(|problem| format!("`{}` (--upstream-lookup-auth): {problem}", path.display()))
    };
    Fresh::new(
        "--upstream-lookup-auth",
        vec![file.to_owned()],
        Lapse::Ends,
        load,
    )
}

/// The value of `Authorization` that a file's text stands for.
fn value(bytes: &[u8]) -> Result<HeaderValue, String> {
    const RIGHT: &str =
        "expected `USER:PASSWORD`, or a value of `Authorization` such as `ApiKey ..`";
    let text = std::str::from_utf8(bytes).map_err(|_| format!("it is no text; {RIGHT}"))?;
    let text = text.trim();
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let value = if first.contains(':') {
        format!("Basic {}", base64(text.as_bytes()))
    } else if !first.is_empty() && !rest.trim().is_empty() {
        text.to_owned()
    } else {
        return Err(RIGHT.to_owned());
    };
    let value = HeaderValue::try_from(value);
    let mut value = value.map_err(|_| format!("it has more than one line; {RIGHT}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let mut bits = [0; 3];
        bits[..part.len()].copy_from_slice(part);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for digit in 0..4 {
            let place = (bits >> (18 - 6 * digit)) & 63;
            text.push(match digit <= part.len() {
                true => char::from(DIGITS[place as usize]),
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let value = value(text.as_bytes())?;
        Ok(value.to_str().expect("it is ASCII").to_owned())
    }

    #[test]
    fn a_user_with_a_password_and_a_whole_value_are_both_taken() {
        assert_eq!(
            read("lookups:secret\n").as_deref(),
            Ok("Basic bG9va3VwczpzZWNyZXQ=")
        );
        assert_eq!(read("a:b c").as_deref(), Ok("Basic YTpiIGM="));
        assert_eq!(read("ApiKey abc==").as_deref(), Ok("ApiKey abc=="));
    }

    #[test]
    fn what_is_neither_is_refused_with_what_would_be_right() {
        for text in ["", "secret", "ApiKey ", "ApiKey a\nb"] {
            let problem = read(text).expect_err(text);
            assert!(problem.contains("USER:PASSWORD"), "{problem}");
        }
    }
}
