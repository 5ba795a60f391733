"""The views of a project: one module each, with its VIEW."""
