"""A task's image or video as a checked local file."""
