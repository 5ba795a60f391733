"""What labels were worth, and which of them look wrong."""
