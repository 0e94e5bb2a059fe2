"""Resources: thin wrappers around typed settings; nothing is opened before it is used."""

from pathlib import Path

import dagster as dg


class Workspace(dg.ConfigurableResource[None]):
    """The workspace folder and where its market data comes from.

    Attributes
    ----------
    path : str
        Folder with datasets, verdicts, promotions, sessions and the store.
    source : str
        ``generator`` or a folder with recordings.
    """

    path: str
    source: str = "generator"

    @property
    def folder(self) -> Path:
        """The workspace as an absolute path."""
        return Path(self.path).absolute()
