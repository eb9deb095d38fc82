"""Scenes: images too large to be looked at whole, read in windows whose results have no seams."""
