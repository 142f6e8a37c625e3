"""`models`: the table of networks."""
