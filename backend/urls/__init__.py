"""Web addresses as texts: their origin, and the signatures of object stores."""
