"""Files are read in a child process that may be killed."""
