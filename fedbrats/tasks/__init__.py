"""Tasks: what is predicted and scored, each in one file."""
