"""The endpoints of Winnow's own API, one module per resource."""
