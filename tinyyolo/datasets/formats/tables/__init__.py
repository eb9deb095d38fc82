"""Labels in one table for all images, and in tables of numbers."""
