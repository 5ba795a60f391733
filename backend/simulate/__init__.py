"""Offline experiments with the true labels in the place of annotators."""
