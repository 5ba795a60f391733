"""From a version to the order of the queue in Label Studio."""
