"""The gates measured on the truth: how often do they promote what has no edge, and miss what has?

Why: a gate is a claim about error rates, and a claim that nobody measured is none.

Every alpha is run by the real engine against the real exchange simulation, with measured
latencies and real costs, and judged by the very functions that judge alphas in a workspace.
Only the markets are made up, so that the truth is known. Operator's page: `docs/gates.md`.
"""
