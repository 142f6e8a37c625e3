"""Commands: what the scripts of `sims/` call, one file or folder each."""
