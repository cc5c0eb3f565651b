"""A model's text on its way out: markers become citations, nothing unsafe passes."""
