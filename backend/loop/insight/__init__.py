"""What people want to know about a project, computed from the store, redis and Label Studio for the page."""
