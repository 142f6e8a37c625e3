"""Commands: what `fedbrats` and the scripts of `sims/` call, one file or folder each."""
