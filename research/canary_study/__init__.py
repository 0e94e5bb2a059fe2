"""Canary lives: how often a healthy canary is rolled back, how soon a sick one, and how it stops.

Why: an error rate that is only stated is a hope; here the rule that runs is run a thousand times on
sessions that the paper runtime traded, healthy and spoiled.

`sessions` trades and spoils, `lives` runs the rule, `stop` measures a roll-back in a running
session, `results` writes what was found. Everything is drawn from the seed, but the milliseconds
of `stop`, which are a clock's. Operator's page: `docs/canary.md`.
"""
