"""What keeps a call to a backend healthy: limits, circuit breaker, retries, hedging."""
