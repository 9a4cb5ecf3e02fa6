//! The query `wrapper`: a query in base64.

/// The bytes of a text in base64, with or without padding; `None` where it is none.
pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0_u32);
    for &byte in text.trim_end().trim_end_matches('=').as_bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ if byte.is_ascii_whitespace() => continue,
            _ => return None,
        };
        held = held << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_and_without_padding() {
        let of = |text| decoded(text).map(|bytes| String::from_utf8(bytes).expect("it is UTF-8"));
        assert_eq!(of("eyJhIjoxfQ==").as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(of("eyJhIjoxfQ").as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(of("eyJh\r\nIjoxfQ==\n").as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(of(""), Some(String::new()));
        assert_eq!(of("{}"), None);
    }
}
