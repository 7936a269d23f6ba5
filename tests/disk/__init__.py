"""A disk that fails: each file operation of a small run, one after the other."""
