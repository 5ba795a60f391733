"""The only user of Label Studio's API."""
