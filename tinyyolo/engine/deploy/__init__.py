"""A trained detector for other programs: files, and what they find and cost."""
