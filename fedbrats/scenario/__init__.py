"""What befalls a federation: who is asked and who answers, how long it takes, what is wrong at a site."""
