"""The lexical side (BM25) and the fusion of both sides."""
