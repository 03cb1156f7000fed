import unittest

from roman import from_roman, to_roman


class Roman(unittest.TestCase):
    def test_there_and_back(self):
        for n in range(1, 4000):
            self.assertEqual(from_roman(to_roman(n)), n)

    def test_faults(self):
        for bad in ("", "IIII", "VX", "A"):
            with self.assertRaises(ValueError):
                from_roman(bad)


if __name__ == "__main__":
    unittest.main()
