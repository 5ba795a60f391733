"""The functions that rq calls, and the processes that run them."""
