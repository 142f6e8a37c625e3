"""`predict`: the cases of a folder, with the models of run folders."""
