//! Arithmetic on embeddings and logits.

/// Independent sums: without them the additions form one chain, which may not be reordered and so
/// cannot use vector instructions. 16 are four `v128` registers.
const LANES: usize = 16;

/// The dot product of two vectors of the same length; of embeddings of length 1 it is their cosine.
///
/// Compiles to vector instructions with `-C target-feature=+simd128`. Sums in 32 bits (the error
/// over a few hundred dimensions is about 1e-7) and joins the sums in 64. NaN if an element is NaN.
///
/// # Panics
/// If the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(
        a.len(),
        b.len(),
        "vectors of a dot product have the same length"
    );
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();

    let mut sums = [0.0_f32; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest
        .iter()
        .zip(b_rest)
        .map(|(a, b)| f64::from(a * b))
        .sum();
    sums.into_iter().map(f64::from).sum::<f64>() + rest
}

/// The logistic function: a probability from a logit. In 64 bits, so that large logits stay apart
/// (in 32 all above 17 would be 1). 0 and 1 at the infinities; NaN only for NaN.
pub fn sigmoid(logit: f64) -> f64 {
    if logit >= 0.0 {
        1.0 / (1.0 + (-logit).exp())
    } else {
        let odds = logit.exp();
        odds / (1.0 + odds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_covers_every_element() {
        for length in [0, 1, 15, 16, 17, 384, 1000] {
            let a: Vec<f32> = (0..length).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..length).map(|i| (i % 5) as f32).collect();
            let expected: f64 = a
                .iter()
                .zip(&b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            assert_eq!(dot(&a, &b), expected, "length {length}");
        }
    }

    #[test]
    fn a_nan_anywhere_makes_the_dot_product_nan() {
        for position in [0, 15, 16, 17] {
            let mut a = [1.0_f32; 18];
            a[position] = f32::NAN;
            assert!(dot(&a, &[1.0; 18]).is_nan());
        }
    }

    #[test]
    fn a_sigmoid_is_a_probability() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(f64::INFINITY), 1.0);
        assert_eq!(sigmoid(f64::NEG_INFINITY), 0.0);
        assert_eq!(sigmoid(-1000.0), 0.0);
        assert!(sigmoid(f64::NAN).is_nan());
        // 1 / (1 + e^-2)
        assert!((sigmoid(2.0) - 0.880_797_077_977_882_3).abs() < 1e-15);
        assert!((sigmoid(-2.0) + sigmoid(2.0) - 1.0).abs() < 1e-15);
        assert!(sigmoid(30.0) > sigmoid(29.0) && sigmoid(-30.0) > sigmoid(-31.0));
    }
}
