"""What Label Studio means: its label configs, tags, regions, and its API."""
