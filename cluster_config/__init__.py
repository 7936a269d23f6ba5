"""One YAML file per kind of cluster, packaged so that an installed wheel finds them by name."""
