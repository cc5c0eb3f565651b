"""From a model's grades to one absolute score."""
