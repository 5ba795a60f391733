"""What happens to a project, from its first prediction to the next version."""
