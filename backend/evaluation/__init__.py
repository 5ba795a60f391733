"""How good a model is, when to stop, and which labels look wrong."""
