"""research/backtest."""
