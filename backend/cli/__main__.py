"""`python -m backend.cli` is `yolo-backend`."""

from __future__ import annotations

from backend.cli.app import main

if __name__ == "__main__":
    main()
