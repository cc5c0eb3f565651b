"""Whether citations support the sentences that cite them."""
