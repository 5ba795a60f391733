"""Checks of an installation, for `yolo-backend doctor`: each says that a part works, or what to do."""
