"""A federation: what the server does, what a site does, and what travels between them."""

from fedbrats.federation import flower_env as flower_env  # before any flwr import
