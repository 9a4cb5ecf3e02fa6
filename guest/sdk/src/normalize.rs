//! Brings scores of different scales onto one, over the documents that have a score.

/// Linear from 0 for the smallest value to 1 for the largest.
///
/// One element a document; `None` (and what is not finite) is not looked at and stays `None`. One
/// value alone, or all the same, carries no information: each is 0.5. Never NaN.
pub fn min_max(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let Some((smallest, largest)) = range(values) else {
        return vec![None; values.len()];
    };
    map(values, |value| {
        if smallest == largest {
            return 0.5;
        }
        let width = largest - smallest;
        if width.is_finite() {
            (value - smallest) / width
        } else {
            // The difference of two finite values may overflow; that of their halves cannot.
            (value / 2.0 - smallest / 2.0) / (largest / 2.0 - smallest / 2.0)
        }
    })
}

/// Standard scores: the distance from the mean in standard deviations (of the population).
///
/// One element a document; `None` (and what is not finite) is not looked at and stays `None`. One
/// value alone, or all the same, carries no information: each is 0. Never NaN.
pub fn z_score(values: &[Option<f64>]) -> Vec<Option<f64>> {
    let Some((smallest, largest)) = range(values) else {
        return vec![None; values.len()];
    };
    if smallest == largest {
        return map(values, |_| 0.0);
    }
    // Scores do not change with the scale; with the largest magnitude as 1 no square can overflow
    // or vanish.
    let scale = smallest.abs().max(largest.abs());
    let scaled: Vec<f64> = finite(values).map(|value| value / scale).collect();
    let count = scaled.len() as f64;
    let mean = scaled.iter().sum::<f64>() / count;
    let variance = scaled
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / count;
    let deviation = variance.sqrt();
    map(values, |value| {
        if deviation > 0.0 {
            (value / scale - mean) / deviation
        } else {
            0.0
        }
    })
}

fn finite(values: &[Option<f64>]) -> impl Iterator<Item = f64> {
    values
        .iter()
        .flatten()
        .copied()
        .filter(|value| value.is_finite())
}

fn range(values: &[Option<f64>]) -> Option<(f64, f64)> {
    finite(values).fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((smallest, largest)) => Some((value.min(smallest), value.max(largest))),
    })
}

fn map(values: &[Option<f64>], normalized: impl Fn(f64) -> f64) -> Vec<Option<f64>> {
    let normalized_if_finite =
        |value: &Option<f64>| value.filter(|value| value.is_finite()).map(&normalized);
    values.iter().map(normalized_if_finite).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_max_spans_0_to_1_over_the_scored() {
        let values = [Some(3.0), None, Some(-1.0), Some(1.0)];
        assert_eq!(min_max(&values), [Some(1.0), None, Some(0.0), Some(0.5)]);
    }

    #[test]
    fn z_score_has_mean_0_and_deviation_1() {
        let values = [Some(2.0), None, Some(4.0), Some(4.0), Some(6.0)];
        let root_2 = 2.0_f64.sqrt();
        let normalized = z_score(&values);
        let expected = [Some(-root_2), None, Some(0.0), Some(0.0), Some(root_2)];
        for (normalized, expected) in normalized.iter().zip(expected) {
            assert_eq!(normalized.is_some(), expected.is_some());
            let difference = normalized.unwrap_or(0.0) - expected.unwrap_or(0.0);
            assert!(difference.abs() < 1e-12);
        }
    }

    #[test]
    fn one_value_and_ties_have_a_defined_value() {
        for values in [
            vec![Some(0.0)],
            vec![Some(7.5)],
            vec![Some(-0.1), None, Some(-0.1)],
        ] {
            assert!(min_max(&values).iter().flatten().all(|value| *value == 0.5));
            assert!(z_score(&values).iter().flatten().all(|value| *value == 0.0));
        }
    }

    #[test]
    fn nothing_scored_stays_nothing() {
        for values in [
            vec![],
            vec![None, None],
            vec![Some(f64::NAN), Some(f64::INFINITY)],
        ] {
            assert_eq!(min_max(&values), vec![None; values.len()]);
            assert_eq!(z_score(&values), vec![None; values.len()]);
        }
    }

    #[test]
    fn extreme_values_stay_finite_and_in_order() {
        let extremes: [&[f64]; 4] = [
            &[f64::MIN, 0.0, f64::MAX],
            &[0.0, f64::from_bits(1), f64::from_bits(2)],
            &[1.0, 1.0 + f64::EPSILON],
            &[-1e300, 1e-300],
        ];
        for values in extremes {
            let values: Vec<_> = values.iter().copied().map(Some).collect();
            for normalized in [min_max(&values), z_score(&values)] {
                assert!(
                    normalized.iter().flatten().all(|value| value.is_finite()),
                    "{values:?}"
                );
                assert!(
                    normalized.is_sorted_by(|a, b| a < b),
                    "{values:?}: {normalized:?}"
                );
            }
        }
    }
}
