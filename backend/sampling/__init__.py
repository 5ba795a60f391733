"""From acquisition values to the order of a queue."""
