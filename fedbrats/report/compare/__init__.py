"""Figures and the page that compare the jobs of a sweep; what they show comes from `studies`."""
