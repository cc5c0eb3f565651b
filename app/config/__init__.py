"""Settings from winnow.toml and the environment."""
