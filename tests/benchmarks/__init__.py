"""What the backend promises about speed and memory, measured side by side on this machine: `make bench`."""
