# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which training something belongs to: the file run.json, beside checkpoints in HDFS and S3, on the node and in the export's manifest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from deeptrain import documents

FILE = "run.json"
# What makes the configuration. Hosts and the cluster's shape are not among it.
_NAMES = {"command": "the command", "data_manifest_sha256": "the sha256 of the data's manifest"}


@dataclass(frozen=True)
class Identity:
    """A training's configuration, and the id that it keeps when a user changes the configuration with deeptrain_resume_changed_training; None where unknown."""

    configuration: dict | None = None
    training_id: str | None = None

    @classmethod
    def of(cls, document: dict) -> Identity:
        """The identity in a document, such as a manifest."""
        configuration, training_id = document.get("configuration"), document.get("training_id")
        return cls(configuration if isinstance(configuration, dict) else None, training_id if isinstance(training_id, str) else None)

    @classmethod
    def decode(cls, content: bytes | None) -> Identity:
        try:
            document = documents.parse(content or b"{}")
        except ValueError:
            return cls()
        return cls.of(document) if isinstance(document, dict) else cls()

    def encode(self) -> bytes:
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode()

    def same(self, other: Identity) -> bool:
        """Whether the other has this configuration, as far as this one is known."""
        if self.configuration is None or other.configuration is None:
            return False
        return all(other.configuration.get(name) == value for name, value in self.configuration.items())

    def continues(self, other: Identity) -> bool:
        """Whether what the other left is this training's own."""
        return self.same(other) or self.training_id is not None and self.training_id == other.training_id

    def difference(self, other: Identity) -> str:
        """What the other has and this one has not, for people."""
        if other.configuration is None:
            return "its configuration is not recorded"
        if self.configuration is None:
            return "the configuration of this run is not recorded"
        parts = []
        for name, value in self.configuration.items():
            before = other.configuration.get(name)
            if before != value:
                if isinstance(before, list) and isinstance(value, list):
                    before, value = _changed(before, value)
                parts.append(f"{_NAMES.get(name, name)} was {json.dumps(before, ensure_ascii=False)}, is now {json.dumps(value, ensure_ascii=False)}")
        return "; ".join(parts)


def read_identity(training: Path) -> Identity:
    """The identity that a training has left in its job's directory."""
    try:
        return Identity.decode((training / FILE).read_bytes())
    except OSError:
        return Identity()


def _changed(before: list, now: list) -> tuple[list, list]:
    """Both lists without what they share at their beginning and end; an option's name stays with its value."""
    start = next((index for index, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), min(len(before), len(now)))
    end = 0
    while end < min(len(before), len(now)) - start and before[-1 - end] == now[-1 - end]:
        end += 1
    start = max(0, start - 1)
    return before[start : len(before) - end], now[start : len(now) - end]
