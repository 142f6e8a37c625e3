"""`evaluate`: scores of label files, whichever tool wrote them."""
