//! How two rankings of the same documents differ: pure functions, no state.
//!
//! An *order* is what [`Ranking::order`] gives: positions of documents in the request, best first, none
//! twice, filtered documents left out. What is compared is what a searcher would see, so ties in the
//! scores are already broken, and the unscored stand where the answer shows them.

use rerankd_core::Ranking;

/// How many places the first page of results has: the depth of overlap and movement.
pub const FIRST_PAGE: usize = 10;

/// A place that a document does not have.
const NOWHERE: usize = usize::MAX;

/// Kendall's tau between two orders, over the documents that are in both.
///
/// `1 - 2 d / (n (n - 1) / 2)`, with `d` the pairs that the orders put the other way round: 1 for the
/// same order, -1 for the reverse, about 0 for orders that have nothing to do with each other. An order
/// has no ties, so tau-a, tau-b and tau-c are the same number here.
///
/// Discordant pairs are counted as the inversions that a merge sort removes, in O(n log n): W. R.
/// Knight, "A Computer Method for Calculating Kendall's Tau with Ungrouped Data", Journal of the
/// American Statistical Association 61 (1966), <https://doi.org/10.1080/01621459.1966.10480879>.
///
/// `None` if fewer than two documents are in both: there is no pair to agree on.
pub fn kendall_tau(one: &[usize], other: &[usize]) -> Option<f64> {
    let places = places(other);
    let mut common: Vec<usize> = one
        .iter()
        .filter_map(|&document| place_of(&places, document))
        .collect();
    if common.len() < 2 {
        return None;
    }
    let mut scratch = common.clone();
    let discordant = sort_counting_inversions(&mut common, &mut scratch);
    let pairs = common.len() as u64 * (common.len() as u64 - 1) / 2;
    Some(1.0 - 2.0 * discordant as f64 / pairs as f64)
}

/// Share of the first `depth` documents that two orders have in common, whatever their places: the size
/// of the intersection by that of the longer head, in `[0, 1]`. Two empty orders overlap fully.
pub fn overlap_at(depth: usize, one: &[usize], other: &[usize]) -> f64 {
    let one = &one[..one.len().min(depth)];
    let other = &other[..other.len().min(depth)];
    let longer = one.len().max(other.len());
    if longer == 0 {
        return 1.0;
    }
    let places = places(other);
    let common = one
        .iter()
        .filter(|&&document| place_of(&places, document).is_some())
        .count();
    common as f64 / longer as f64
}

/// Share of the first `depth` places that show another document, or none, in `after` than in `before`,
/// in `[0, 1]`. It is 0 exactly if the two first pages are the same: if a policy, for all its work,
/// changes nothing that a searcher sees at once.
///
/// A document that moves up one place moves another one down, and both count; one that drops out of the
/// head moves all below it. So this tells whether and how widely a page changes; how far documents
/// travel is what [`kendall_tau`] tells.
pub fn moved_in_head(depth: usize, before: &[usize], after: &[usize]) -> f64 {
    let places = before.len().max(after.len()).min(depth);
    if places == 0 {
        return 0.0;
    }
    let moved = (0..places)
        .filter(|&place| before.get(place) != after.get(place))
        .count();
    moved as f64 / places as f64
}

/// How the scores of one ranking differ from those of another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreShift {
    /// Documents that both scored; at least one.
    pub documents: usize,
    /// Mean of the differences, second less first: where the scores as a whole went.
    pub mean: f64,
    /// Mean of the differences without their signs: how far scores went. Not below `mean`.
    pub mean_absolute: f64,
}

/// The shift of scores from `one` to `other`, over the documents that both scored; `None` if there is
/// none. Only makes sense if the scores are of one kind.
///
/// Finite also where differences are not: they count as `f64::MAX` at most.
pub fn score_shift(one: &Ranking, other: &Ranking) -> Option<ScoreShift> {
    let mut shift = ScoreShift {
        documents: 0,
        mean: 0.0,
        mean_absolute: 0.0,
    };
    for index in 0..one.documents().min(other.documents()) {
        let (Some(from), Some(to)) = (one.score(index), other.score(index)) else {
            continue;
        };
        let difference = (to - from).clamp(-f64::MAX, f64::MAX);
        shift.documents += 1;
        shift.mean = running_mean(shift.mean, difference, shift.documents);
        shift.mean_absolute = running_mean(shift.mean_absolute, difference.abs(), shift.documents);
    }
    (shift.documents > 0).then_some(shift)
}

/// The mean of `count` values, the last of which is `value`, from that of those before it. Does not
/// overflow.
pub(crate) fn running_mean(before: f64, value: f64, count: usize) -> f64 {
    let count = count as f64;
    before * ((count - 1.0) / count) + value / count
}

/// The place of each document of an order; [`NOWHERE`] for those that are not in it.
fn places(order: &[usize]) -> Vec<usize> {
    let documents = order.iter().max().map_or(0, |&last| last + 1);
    let mut places = vec![NOWHERE; documents];
    for (place, &document) in order.iter().enumerate() {
        places[document] = place;
    }
    places
}

fn place_of(places: &[usize], document: usize) -> Option<usize> {
    places
        .get(document)
        .copied()
        .filter(|&place| place != NOWHERE)
}

/// Sorts, and says how many pairs stood the wrong way round. `scratch` is as long as `values`.
fn sort_counting_inversions(values: &mut [usize], scratch: &mut [usize]) -> u64 {
    let length = values.len();
    if length < 2 {
        return 0;
    }
    let middle = length / 2;
    let mut inversions = sort_counting_inversions(&mut values[..middle], &mut scratch[..middle])
        + sort_counting_inversions(&mut values[middle..], &mut scratch[middle..]);
    // An order that hardly changed is mostly sorted.
    if values[middle - 1] <= values[middle] {
        return inversions;
    }
    scratch.copy_from_slice(values);
    let (left, right) = scratch.split_at(middle);
    let (mut l, mut r) = (0, 0);
    for value in values {
        if r == right.len() || (l < left.len() && left[l] <= right[r]) {
            *value = left[l];
            l += 1;
        } else {
            *value = right[r];
            r += 1;
            // It passes all that is left of the left half.
            inversions += (left.len() - l) as u64;
        }
    }
    inversions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rerankd_core::{Judgment, Outcome};

    use super::*;

    /// Two orders of up to 40 documents, each without some of them.
    fn two_orders() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
        (0..40_usize).prop_flat_map(|documents| {
            let all: Vec<usize> = (0..documents).collect();
            let order = || {
                (Just(all.clone()).prop_shuffle(), 0..=documents)
                    .prop_map(|(order, length)| order[..length.max(order.len() / 2)].to_vec())
            };
            (order(), order())
        })
    }

    fn ranking(scores: &[Option<f64>]) -> Ranking {
        let judge = |score: &Option<f64>| Judgment {
            outcome: score.map_or_else(|| Outcome::Unscored("late".into()), Outcome::Scored),
            truncated: false,
            explanation: None,
        };
        Ranking::new(scores.iter().map(judge).collect())
    }

    fn scores() -> impl Strategy<Value = Vec<Option<f64>>> {
        proptest::collection::vec(proptest::option::of(-1e300..1e300_f64), 0..30)
    }

    /// Tau by its definition, pair by pair.
    fn tau_of_all_pairs(one: &[usize], other: &[usize]) -> Option<f64> {
        let place = |order: &[usize], document| order.iter().position(|&d| d == document);
        let common: Vec<(usize, usize)> = one
            .iter()
            .enumerate()
            .filter_map(|(p, &d)| place(other, d).map(|q| (p, q)))
            .collect();
        let mut agreement = 0_i64;
        let mut pairs = 0_i64;
        for (index, a) in common.iter().enumerate() {
            for b in &common[index + 1..] {
                pairs += 1;
                agreement += if (a.0 < b.0) == (a.1 < b.1) { 1 } else { -1 };
            }
        }
        (pairs > 0).then(|| agreement as f64 / pairs as f64)
    }

    #[test]
    fn known_values() {
        // By hand: of the 10 pairs, 7 stand the other way round.
        let (one, other) = ([2, 1, 4, 0, 3], [4, 0, 3, 1, 2]);
        let tau = kendall_tau(&one, &other).expect("five documents have pairs");
        assert!((tau - -0.4).abs() < 1e-12, "{tau}");
        assert_eq!(kendall_tau(&[0, 1, 2], &[2, 1, 0]), Some(-1.0));
        assert_eq!(
            kendall_tau(&[0, 1, 2, 3], &[0, 1, 3, 2]),
            Some(1.0 - 2.0 / 6.0)
        );
        assert_eq!(kendall_tau(&[0, 1], &[1]), None);
        assert_eq!(kendall_tau(&[], &[]), None);

        assert_eq!(overlap_at(2, &[0, 1, 2], &[1, 2, 0]), 0.5);
        assert_eq!(overlap_at(10, &[0, 1, 2], &[1, 2, 0]), 1.0);
        assert_eq!(overlap_at(10, &[0, 1, 2, 3], &[3]), 0.25);
        assert_eq!(overlap_at(10, &[], &[]), 1.0);

        assert_eq!(moved_in_head(10, &[0, 1, 2, 3], &[0, 2, 1, 3]), 0.5);
        // Document 0 was filtered: every place shows another document, and the last none.
        assert_eq!(moved_in_head(10, &[0, 1, 2, 3], &[1, 2, 3]), 1.0);
        let mut below: Vec<usize> = (0..20).collect();
        below.swap(10, 19);
        let engine: Vec<usize> = (0..20).collect();
        assert_eq!(moved_in_head(10, &engine, &below), 0.0);
        assert_eq!(moved_in_head(10, &[], &[]), 0.0);
    }

    #[test]
    fn a_shift_counts_documents_that_both_scored() {
        let one = ranking(&[Some(1.0), Some(2.0), None, Some(4.0)]);
        let other = ranking(&[Some(2.0), Some(0.0), Some(9.0), None]);
        let shift = score_shift(&one, &other).expect("two documents have both scores");
        assert_eq!(
            (shift.documents, shift.mean, shift.mean_absolute),
            (2, -0.5, 1.5)
        );
        assert_eq!(
            score_shift(&one, &ranking(&[None, None, Some(1.0), None])),
            None
        );
        let far = score_shift(
            &ranking(&[Some(f64::MIN); 3]),
            &ranking(&[Some(f64::MAX); 3]),
        );
        assert!(far.is_some_and(|shift| shift.mean.is_finite() && shift.mean > 1e308));
    }

    proptest! {
        #[test]
        fn tau_is_that_of_all_pairs((one, other) in two_orders()) {
            match (kendall_tau(&one, &other), tau_of_all_pairs(&one, &other)) {
                (Some(tau), Some(expected)) => prop_assert!((tau - expected).abs() < 1e-12),
                (tau, expected) => prop_assert_eq!(tau, expected),
            }
        }

        #[test]
        fn tau_and_overlap_do_not_care_which_order_is_which(
            (one, other) in two_orders(),
            depth in 0..50_usize,
        ) {
            prop_assert_eq!(kendall_tau(&one, &other), kendall_tau(&other, &one));
            prop_assert_eq!(overlap_at(depth, &one, &other), overlap_at(depth, &other, &one));
        }

        #[test]
        fn an_order_agrees_with_itself_and_its_reverse_with_nothing((one, _) in two_orders()) {
            let reverse: Vec<usize> = one.iter().rev().copied().collect();
            if one.len() >= 2 {
                prop_assert_eq!(kendall_tau(&one, &one), Some(1.0));
                prop_assert_eq!(kendall_tau(&one, &reverse), Some(-1.0));
            }
            prop_assert_eq!(overlap_at(FIRST_PAGE, &one, &one), 1.0);
            prop_assert_eq!(moved_in_head(FIRST_PAGE, &one, &one), 0.0);
        }

        #[test]
        fn nothing_moved_exactly_if_the_heads_are_equal(
            (one, other) in two_orders(),
            depth in 1..50_usize,
        ) {
            let moved = moved_in_head(depth, &one, &other);
            let same = one.iter().take(depth).eq(other.iter().take(depth));
            prop_assert_eq!(moved == 0.0, same);
            prop_assert!((0.0..=1.0).contains(&moved));
            prop_assert!((0.0..=1.0).contains(&overlap_at(depth, &one, &other)));
        }

        #[test]
        fn a_shift_back_undoes_the_shift(one in scores(), other in scores()) {
            let (one, other) = (ranking(&one), ranking(&other));
            prop_assert!(score_shift(&one, &one).is_none_or(|s| s.mean_absolute == 0.0));
            match (score_shift(&one, &other), score_shift(&other, &one)) {
                (Some(there), Some(back)) => {
                    prop_assert_eq!(there.documents, back.documents);
                    prop_assert_eq!(there.mean, -back.mean);
                    prop_assert_eq!(there.mean_absolute, back.mean_absolute);
                    prop_assert!(there.mean.abs() <= there.mean_absolute * (1.0 + 1e-12));
                }
                (there, back) => prop_assert_eq!(there, back),
            }
        }
    }
}
