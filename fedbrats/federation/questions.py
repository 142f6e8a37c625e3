"""What a server may ask a site: Flower's message types, `category` or `category.action`, as both sides know them.

A question is a file on each side: `server/` has what a good reply to it is, `site/` has who answers it. A message
carries a `config` record with what is asked of whom, and where a model travels an `arrays` record.
"""

from __future__ import annotations

PREPARE = "query.prepare"  # take this configuration and prepare yourself; in a deployment only
PLAN = "query.plan"  # take what all sites told and plan the network by it; in a deployment only
JOIN = "query.join"  # who are you and what do you hold
SURVEY = "query.survey"  # histograms of its patients, before training
TRAIN = "train"  # one round of local training
VALIDATE = "evaluate.validate"  # score a model on the validation cases
FIT = "evaluate.fit"  # fit the post-processing on the validation cases
TEST = "evaluate.test"  # score a model on the test cases, everything about each
FLOOR = "evaluate.floor"  # score a threshold on FLAIR on the test cases; no model comes with it
STAYS = "query.stays"  # the arrays that stay at the site, once, for their mean
KEYS = "query.keys"  # secure aggregation: the public keys of a site for one round
SHARES = "query.shares"  # secure aggregation: its secrets, in shares sealed for the other sites
UNMASK = "query.unmask"  # secure aggregation: its shares of what is left in the sum
SPENT = "query.spent"  # what the privacy of the site's patients has cost

READY, WAITING = "ready", "waits"  # what a site says to PREPARE
