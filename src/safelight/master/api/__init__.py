"""The public API: its endpoints, their OpenAPI document and the records in it."""
