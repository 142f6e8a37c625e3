"""Audits of a private run: its step, its accounts, its noise, planted patients, and what a picture gives away."""
