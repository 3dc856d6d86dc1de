"""Requests beyond a single call: the bodies of uploads, repetition after lost answers, one wait for many tasks."""
