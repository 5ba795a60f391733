"""From labels to a published version."""
