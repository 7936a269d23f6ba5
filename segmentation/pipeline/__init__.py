"""What runs the wings: settings, cluster, store, model, and the wiring of the pipeline."""
