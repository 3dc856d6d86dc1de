"""Read the lock files of other tools: Poetry, Pipenv, and all that write a pylock.toml."""
