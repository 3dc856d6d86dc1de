"""Images, machines and containers in tests of drumhead."""
