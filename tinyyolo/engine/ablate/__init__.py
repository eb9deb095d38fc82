"""Rows of settings x seeds x data, each trained by the `train` command, as a record, a table and a picture."""
