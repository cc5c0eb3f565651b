"""What model calls cost: prices, the ledger, budgets, and estimates."""
