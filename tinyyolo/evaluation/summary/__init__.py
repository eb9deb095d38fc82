"""Several runs or detectors in one table: rows of figures, written as Markdown, LaTeX or CSV."""
