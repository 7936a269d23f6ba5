"""Partitions of ratings → mergeable sums and counts → user genre means as a Dask array."""
