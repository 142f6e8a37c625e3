"""`habitats`: sub-regions of tumours without labels for them, and the search for their number."""
