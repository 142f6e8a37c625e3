"""What can be configured: the typed schema, and what a `_target_` may name."""
