"""Active learning inside Label Studio: YOLO pre-annotations, retraining and a queue that teaches the model most."""

__version__ = "0.1.0"
