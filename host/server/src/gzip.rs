//! Bodies that were compressed for the way.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use rerankd_core::RerankError;

use crate::body::Gathered;

/// How much is unpacked between two looks at the limits, bytes.
const AT_A_TIME: usize = 64 << 10;

/// How much work is put into packing: what the engines do (`http.compression_level`).
const LEVEL: u32 = 3;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    /// Nothing that is read here.
    Other,
}

/// What a message's head says of its body.
pub(crate) fn encoding(headers: &HeaderMap) -> Encoding {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Encoding::Identity,
        (Some(value), None) => {
            let is = |name: &str| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
            if is("identity") || is("") {
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

/// Why a body was not unpacked.
#[derive(Debug)]
pub(crate) enum Packed {
    /// It is no gzip, or broken.
    Broken(io::Error),
    /// More is in it than is allowed.
    TooLarge,
    /// There is no room for what is in it.
    NoRoom(RerankError),
}

/// Unpacks at most `limit` bytes: however small a body is, it may be large inside. `room` is asked for
/// each part.
///
/// # Errors
/// Why it was not unpacked.
pub(crate) fn unpack(
    packed: &[u8],
    limit: usize,
    mut room: impl FnMut(usize) -> Result<(), RerankError>,
) -> Result<Bytes, Packed> {
    let mut decoder = MultiGzDecoder::new(packed);
    let mut unpacked = Gathered::new(0);
    let mut part = vec![0; AT_A_TIME];
    loop {
        let read = match decoder.read(&mut part) {
            Ok(0) => return Ok(unpacked.into_bytes()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Packed::Broken(error)),
        };
        if unpacked.len() + read > limit {
            return Err(Packed::TooLarge);
        }
        let added = unpacked.add(&part[..read], &mut room);
        added.map_err(Packed::NoRoom)?;
    }
}

/// Whether who asks takes a body in gzip: `Accept-Encoding` names it, with a weight that is not 0.
pub(crate) fn is_accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let codings = values.filter_map(|value| value.to_str().ok());
    codings.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let is_gzip = name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip");
        let refused = parts.any(|part| {
            let weight = part.split_once('=');
            weight.is_some_and(|(name, weight)| {
                name.trim().eq_ignore_ascii_case("q") && weight.trim().parse() == Ok(0.0)
            })
        });
        is_gzip && !refused
    })
}

/// Packs a body.
pub(crate) fn pack(plain: &[u8]) -> Vec<u8> {
    let packed = Vec::with_capacity(plain.len() / 4);
    let mut encoder = GzEncoder::new(packed, Compression::new(LEVEL));
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.expect("memory takes all")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rerankd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_bomb_is_left_alone() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder
            .write_all(&vec![b' '; 1 << 20])
            .expect("memory takes all");
        let packed = encoder.finish().expect("memory takes all");
        let plenty = |_| Ok(());
        let too_large = unpack(&packed, (1 << 20) - 1, plenty);
        assert!(matches!(too_large, Err(Packed::TooLarge)));
        let whole = unpack(&packed, 1 << 20, plenty).expect("it fits");
        assert_eq!(whole.len(), 1 << 20);
        for broken in [&b"no gzip"[..], &packed[..packed.len() / 2]] {
            assert!(matches!(
                unpack(broken, 1 << 20, plenty),
                Err(Packed::Broken(_))
            ));
        }
        let mut asked = 0;
        let full = unpack(&packed, 1 << 20, |size| {
            asked += size;
            Err(RerankError::new(ErrorKind::Overloaded, "full"))
        });
        assert!(matches!(full, Err(Packed::NoRoom(_))));
        assert!(asked <= 1 << 17, "{asked} bytes were unpacked into no room");
    }
    #[test]
    fn gzip_is_for_those_who_ask_for_it() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            is_accepted(&headers)
        };
        for value in ["gzip", "deflate, GZIP", "br;q=1.0, gzip;q=0.2", "x-gzip"] {
            assert!(of(value), "{value}");
        }
        for value in [
            "identity",
            "",
            "gzip;q=0",
            "deflate, gzip; q=0.0",
            "*",
            "br",
        ] {
            assert!(!of(value), "{value}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
        let plain = vec![b'x'; 100_000];
        let packed = pack(&plain);
        assert!(packed.len() < 2_000);
        let unpacked = unpack(&packed, plain.len(), |_| Ok(())).expect("it is gzip");
        assert_eq!(unpacked, plain);
    }
}
