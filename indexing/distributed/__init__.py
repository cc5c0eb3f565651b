"""Reading, cutting and embedding on the machines of a Ray cluster, for `indexing.pipeline` on one of them."""
