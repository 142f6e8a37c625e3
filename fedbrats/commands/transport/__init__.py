"""`transport`: brains to cubes that keep their mass, and labels back."""
