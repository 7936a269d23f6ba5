"""Clusters and user means → profiles → personas → figures and report."""
