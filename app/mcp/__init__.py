"""The use cases as tools of the Model Context Protocol, for agents. Only `server` knows its SDK."""
