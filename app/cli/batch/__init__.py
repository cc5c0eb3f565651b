"""A file of texts through the service or this process: what is read, what is written, and how a run goes on."""
