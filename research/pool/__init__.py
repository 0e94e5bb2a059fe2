"""The pool: what a new alpha adds to what trades, weights by several methods, and a view of both.

`margin` and `weights` are pure functions over series; `overview` reads verdicts and permits.
Operator's page: `docs/gates.md`.
"""

from research.pool.margin import Marginal, OutOfFold, correlation, marginal, out_of_fold

__all__ = ["Marginal", "OutOfFold", "correlation", "marginal", "out_of_fold"]
