"""The only home of ultralytics and torch: predicting, training and judging models."""
