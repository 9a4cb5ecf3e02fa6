//! Which side of a canary a request is on: a pure function of a salt and a key.
//!
//! The same key is on the same side on every page, process, machine and release of rerankd, as nothing
//! but SHA-256 decides. Sides of different salts have nothing to do with each other, so that it is not
//! the same people who get every experiment: the salt is to name the canary (its policy and digest).

use sha2::{Digest, Sha256};

/// Where a key stands, in `[0, 100)`: evenly spread over keys.
///
/// The first 52 bits of SHA-256 over the salt's length in bytes (64 bits, big endian), the salt and the
/// key, as a fraction of 100.
pub fn side(salt: &str, key: &str) -> f64 {
    let mut hash = Sha256::new();
    // With its length, so that `a`, `bc` is not `ab`, `c`.
    hash.update((salt.len() as u64).to_be_bytes());
    hash.update(salt);
    hash.update(key);
    let digest = hash.finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    // 52 bits are exact in an f64, and so is their share of 100 to below 100.
    (u64::from_be_bytes(head) >> 12) as f64 / (1_u64 << 52) as f64 * 100.0
}

/// Whether a key is among the `percent` (0 to 100) that the canary takes. A key that is in stays in
/// when the share grows; at 0 none is in, at 100 all are.
pub fn in_canary(salt: &str, key: &str, percent: f64) -> bool {
    side(salt, key) < percent
}

/// What a request is split by: the header `Rerankd-Key`, else the request's own `key`, else its query,
/// so that all pages of a search are on one side. An empty key is none.
pub fn split_key<'a>(header: Option<&'a str>, key: Option<&'a str>, query: &'a str) -> &'a str {
    let given = |key: Option<&'a str>| key.filter(|key| !key.is_empty());
    given(header).or(given(key)).unwrap_or(query)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made with Python: `int.from_bytes(hashlib.sha256(len(salt).to_bytes(8, "big") + salt +
    /// key).digest()[:8], "big") >> 12`, over 2 ** 52, times 100.
    #[test]
    fn sides_are_the_same_everywhere_and_for_ever() {
        for (salt, key, expected) in [
            ("", "", 68.4897479980922),
            ("semantic-blend", "crocs", 18.973898266584488),
            ("semantic-blend", "u1", 62.942519012221496),
            ("semantic-blend/58cb7a56", "u1", 17.9294470043589),
            ("salt", "snö ☃", 57.138519332595884),
        ] {
            assert_eq!(side(salt, key), expected, "{salt:?}, {key:?}");
        }
    }

    #[test]
    fn keys_are_spread_evenly() {
        const KEYS: usize = 100_000;
        let mut tenths = [0_usize; 10];
        for key in 0..KEYS {
            tenths[(side("shop", &format!("user-{key}")) / 10.0) as usize] += 1;
        }
        // Five standard deviations of a tenth: sqrt(KEYS * 0.1 * 0.9).
        for count in tenths {
            assert!(count.abs_diff(KEYS / 10) < 475, "{tenths:?}");
        }
    }

    #[test]
    fn two_salts_split_the_same_keys_differently() {
        let both = (0..100_000)
            .map(|key| format!("user-{key}"))
            .filter(|key| in_canary("one", key, 10.0) && in_canary("other", key, 10.0))
            .count();
        // A tenth of a tenth, five standard deviations.
        assert!(both.abs_diff(1000) < 158, "{both}");
    }

    #[test]
    fn a_share_of_nothing_takes_none_and_of_all_takes_all() {
        for key in (0..1000).map(|key| key.to_string()) {
            assert!(!in_canary("", &key, 0.0) && !in_canary("", &key, f64::NAN));
            assert!(in_canary("", &key, 100.0));
        }
    }

    #[test]
    fn the_header_goes_before_the_key_and_the_key_before_the_query() {
        assert_eq!(split_key(Some("h"), Some("k"), "q"), "h");
        assert_eq!(split_key(None, Some("k"), "q"), "k");
        assert_eq!(split_key(Some(""), Some(""), "q"), "q");
    }

    proptest! {
        #[test]
        fn a_key_that_is_in_stays_in(
            salt: String,
            key: String,
            percent in 0.0..=100.0_f64,
            more in 0.0..=100.0_f64,
        ) {
            let side = side(&salt, &key);
            prop_assert!((0.0..100.0).contains(&side));
            prop_assert!(!in_canary(&salt, &key, percent) || in_canary(&salt, &key, percent + more));
        }

        #[test]
        fn salt_and_key_do_not_run_together(salt in "[ab]{1,4}", key in "[ab]{0,4}") {
            let (head, last) = salt.split_at(salt.len() - 1);
            prop_assert_ne!(side(&salt, &key), side(head, &format!("{last}{key}")));
        }
    }
}
