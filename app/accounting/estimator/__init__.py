"""What a month of work costs on each backend, and where hosting a model oneself breaks even."""
