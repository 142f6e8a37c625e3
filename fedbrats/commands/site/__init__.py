"""`fedbrats site`: one hospital's side of a federation."""
