"""Every decision that the live loop and `simulate` take alike, as pure functions that both call."""
