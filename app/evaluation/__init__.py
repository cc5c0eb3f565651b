"""`winnow eval` and `winnow calibrate`: backends measured on one's own questions."""
