//! Bodies that were compressed for the way.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use rerankd_core::RerankError;

use crate::body::Gathered;

/// How much is unpacked between two looks at the limits, bytes.
const AT_A_TIME: usize = 64 << 10;

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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
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
}
