"""A Dask array → clusters, axes and their quality; knows nothing of films or users."""
