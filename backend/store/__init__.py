"""Versions, scored pools and the state of projects, in a folder or behind an fsspec URL."""
