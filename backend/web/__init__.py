"""The server: Label Studio's ML backend protocol and the status API."""
