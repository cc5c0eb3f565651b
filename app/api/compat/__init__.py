"""Endpoints in the formats of other products, for clients that were made for these. Not described at /schema: their
own products do that; docs/integrations.md says how to set each of them up.
"""
