"""The README as a package index shows it: links from the repository's address."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def absolute(text: str, repository: str, reference: str) -> str:
    """Leads links and pictures to the repository, where they are relative to it."""
    start = f"{repository}/raw/{reference}/"
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:|#)", rf"\1{start}", text)
    start = f"{repository}/blob/{reference}/"
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:|#)", rf"\1{start}", text)


class Readme(MetadataHookInterface):
    """Gives the project the README of its version."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Takes the addresses from pyproject.toml, where they stand once."""
        text = Path(self.root, "README.md").read_text("utf-8")
        repository, version = metadata["urls"]["Repository"], metadata["version"]
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute(text, repository, f"v{version}"),
        }
