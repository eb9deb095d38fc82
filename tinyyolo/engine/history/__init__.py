"""What a run leaves behind, read again: which code it was, how long it took, what it reached; several as one table."""
