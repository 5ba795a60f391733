"""The only user of rq, and what redis carries beside jobs."""
