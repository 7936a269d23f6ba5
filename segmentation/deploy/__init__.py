"""From a file of ``cluster_config/`` to workers that can be relied on."""
