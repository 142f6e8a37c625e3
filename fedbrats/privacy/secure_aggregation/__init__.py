"""Secure aggregation (Bonawitz et al., CCS 2017): the server learns the sum of what the sites send and nothing else.

`ring` turns weighted arrays into whole numbers modulo 2^64, `masks` hides them, `sharing` (Shamir) lets the others
stand in for a site that drops out, `keys` seals what the server only carries, and `protocol` has the two halves.
Nothing here knows messages, rounds on disk or Flower.
"""
