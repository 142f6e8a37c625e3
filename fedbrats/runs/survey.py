"""`survey.json`: what the sites have told of their patients before training."""

from __future__ import annotations

SURVEY = "survey.json"
