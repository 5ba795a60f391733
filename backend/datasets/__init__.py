"""Labels on disk in YOLO's formats, read and written."""
