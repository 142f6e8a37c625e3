"""Engines: one ServerApp and one ClientApp, carried by worker processes (`local`) or by Ray (`ray`)."""

from fedbrats.federation import flower_env as flower_env  # before any flwr import
