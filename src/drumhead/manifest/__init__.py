"""A project's manifests: meta/package.yaml, meta/run.yaml and the ignore file."""
