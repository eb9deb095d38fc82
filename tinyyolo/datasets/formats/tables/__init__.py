"""Labels in one table for all images."""
