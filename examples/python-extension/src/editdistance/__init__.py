"""How many characters must be inserted, removed or replaced to make one string of another."""

from editdistance._distance import distance

__all__ = ["distance"]
