import unittest

from blend import as_sentences, blend, min_max


class Blend(unittest.TestCase):
    def test_both_parts_are_normalized_and_weighed(self):
        scores = blend([0.2, 0.6, 0.4], [30, 10, 20], 0.75)
        for score, expected in zip(scores, [0.25, 0.75, 0.5]):
            self.assertAlmostEqual(score, expected)

    def test_what_was_not_scored_moves_no_score(self):
        two = blend([0.1, 0.3], [2, 1], 0.8)
        self.assertEqual(blend([0.1, None, 0.3], [2, 1e6, 1], 0.8), [two[0], None, two[1]])

    def test_one_document_and_ties_have_a_score(self):
        self.assertEqual(min_max([0.7]), [0.5])
        self.assertEqual(min_max([3, None, 3]), [0.5, None, 0.5])
        self.assertEqual(min_max([None]), [None])

    def test_the_largest_numbers_do_not_overflow(self):
        self.assertEqual(min_max([-1.7e308, 0, 1.7e308]), [0, 0.5, 1])

    def test_parts_become_sentences(self):
        self.assertEqual(as_sentences([" A lamp ", "", "Really?", "Yes"]), "A lamp. Really? Yes")


if __name__ == "__main__":
    unittest.main()
