"""Studies: what several runs say together, and what a study across hospitals is for a site that is asked."""
