"""Assets by domain: recordings and datasets, gates, promotion, live sessions, log and reports."""
