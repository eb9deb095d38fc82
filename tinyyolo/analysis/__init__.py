"""Numbers about data, assignments and similarities; no training. The commands are `analyze` and `data stats`."""
