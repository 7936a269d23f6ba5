"""A run on disk: its folder, finished stages, and files that are written whole or not at all."""
