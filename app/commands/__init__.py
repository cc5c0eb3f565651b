"""The commands of `winnow` that have a page of their own."""
