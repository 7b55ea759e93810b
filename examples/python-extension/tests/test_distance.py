import unittest

from editdistance import distance


class DistanceTest(unittest.TestCase):
    def test_known_distances(self):
        for a, b, expected in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("same", "same", 0)]:
            with self.subTest(a=a, b=b):
                self.assertEqual(distance(a, b), expected)

    def test_it_is_symmetric(self):
        self.assertEqual(distance("brick", "brisk!"), distance("brisk!", "brick"))

    def test_characters_count_not_bytes(self):
        self.assertEqual(distance("f\u00fcr", "fur"), 1)

    def test_only_strings_are_compared(self):
        with self.assertRaises(TypeError):
            distance(1, "a")


if __name__ == "__main__":
    unittest.main()
