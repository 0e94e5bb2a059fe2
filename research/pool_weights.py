"""Old place of `research.pool.weights`, kept for gate D until it imports the new one."""

from research.pool.weights import METHODS

__all__ = ["METHODS"]
