"""`run`: one federation, from a configuration to a report."""
