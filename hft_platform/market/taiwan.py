"""How Taiwan's venues and books are named in instruments files, for whoever trades there.

Why: feed and order adapter must agree which account trades an instrument and which of its books an
instrument stands for.

Invariants:
1. A venue that is not here is not Taiwan's.

Operator's page: `docs/instruments.md`.
"""

from __future__ import annotations

MARKETS = {"TAIFEX": "futures", "TWSE": "stock", "TPEX": "stock"}
"""Venue of an instrument, and its side of the market: another account, other classes of quotes."""
ODD_LOT_SUFFIX = ".ODD"
"""End of the symbol of an instrument that stands for the intraday odd-lot book of a stock."""
