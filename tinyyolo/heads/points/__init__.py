"""Anchor-free heads: every cell is a point, which says what is there and where its sides are."""
