"""Annotations of a data set, read from any format, checked, counted and converted."""
