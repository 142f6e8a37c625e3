"""Studies: what several runs say together."""
