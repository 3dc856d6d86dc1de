"""A project's own words: meta/package.yaml, meta/run.yaml and the ignore file."""
