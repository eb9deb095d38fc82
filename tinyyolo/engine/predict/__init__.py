"""What prediction reads and writes."""
