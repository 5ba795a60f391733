"""What a round of labels gained, and which labels look wrong."""
