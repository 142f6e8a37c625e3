"""Across hospitals: Flower's own SuperLink, SuperNodes and SuperExec, with the apps of this package behind them."""

from fedbrats.federation import flower_env as flower_env  # before any flwr import
