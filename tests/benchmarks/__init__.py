"""Benchmarks of the promised speed and memory, measured on this machine: `make bench`."""
