"""`fedbrats study`: a study across hospitals, at the server."""
