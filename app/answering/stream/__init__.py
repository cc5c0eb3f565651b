"""A model's reply as it arrives: markers become citations, unsafe text is removed."""
