"""What a configuration is refused for before any work starts, each with the key and the fix."""
