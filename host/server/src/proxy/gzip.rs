//! Bodies that were compressed for the way.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    /// Nothing that is read here.
    Other,
}

/// What a message's head says of its body.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Encoding::Identity,
        (Some(value), None) => {
            let is = |name: &str| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
            if is("identity") {
                Encoding::Identity
            } else if is("gzip") || is("x-gzip") {
                Encoding::Gzip
            } else {
                Encoding::Other
            }
        }
        (Some(_), Some(_)) => Encoding::Other,
    }
}

/// Unpacks at most `limit` bytes; `None` for more, and for what is no gzip.
pub(super) fn unpack(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    let one_more = u64::try_from(limit).ok()?.saturating_add(1);
    let mut decoder = MultiGzDecoder::new(packed).take(one_more);
    decoder.read_to_end(&mut unpacked).ok()?;
    (unpacked.len() <= limit).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_bomb_is_left_alone() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder
            .write_all(&vec![b' '; 1 << 20])
            .expect("memory takes all");
        let packed = encoder.finish().expect("memory takes all");
        assert_eq!(unpack(&packed, (1 << 20) - 1), None);
        assert_eq!(
            unpack(&packed, 1 << 20).map(|text| text.len()),
            Some(1 << 20)
        );
        assert_eq!(unpack(b"no gzip", 100), None);
        assert_eq!(unpack(&packed[..packed.len() / 2], 1 << 20), None);
    }
}
