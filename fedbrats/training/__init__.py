"""What a site does in one round of plain training: how much, at which rate, on which patches."""
