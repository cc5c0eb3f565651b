"""Labels for texts: what a model is asked, and what its replies say."""
