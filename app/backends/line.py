"""One backend with its limits, its breaker, its retries and its meter."""
