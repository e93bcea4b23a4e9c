# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds everyday words for which the documentation has a term, in the files and directories of the command line.

Changelog fragments of a release are left out, since their text is history.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

SUFFIXES = {".cfg", ".j2", ".md", ".mk", ".py", ".radl", ".sh", ".toml", ".txt", ".yaml", ".yml"}
CHANGELOG = Path(__file__).resolve().parents[1] / "changelogs" / "changelog.yaml"

# Regular expressions of whole words; a space is any white space, also that of a wrapped comment.
WORDS = {
    "look(s|ed|ing)?": "poll, query, read, search for",
    "(go|goes|going|went|gone) on": "continue, resume",
    "(broke|broken|breaks|breaking) off": "interrupted",
    "(bring|brings|bringing|brought)": "copy, upload, download, export, start",
    "mend(s|ed|ing)?": "fix",
    "watch(es|ed|ing)?": "monitor, poll, wait for; controllers renew the lease",
    "(tell|tells|telling|told)": "signal, notify, report, show, distinguish",
    "(outsiders?|strangers?)": "unauthenticated client outside the cluster",
    "(nobody|somebody|anybody|everybody|whoever)": "the subject: client, user, controller; or anyone, all",
    "(start|starts|started|starting)( (it|them|this|that))? again": "restart, rerun, resume",
    "anew": "again, from the beginning; a new run",
    "(again and again|persistently|for ever)": "repeatedly, without limit; retry",
    "(must|can|cannot) (not )?do without": "prerequisite, required",
    "bounded": "with a timeout, limited",
    "(time is over|is gone|are gone|was gone|were gone|has gone)": "timed out, expired, cancelled, not found, missing, unreachable",
    "(what is there|there already|(is|are|was|were) not there|is there (already|yet))": "existing, unchanged, missing",
    "(the deadline|deadline's|role deadline)": "lease, autostop",
    "believ(e|es|ed|ing)": "trust, accept",
    "(let|lets|letting) in": "allow, accept",
    "(make|makes|made|making)( (a|an|the|its|their|new|no|all|of))* (machines?|nodes?|clusters?|infrastructures?|vms?|director(y|ies)|users?)": "create",
    "place of (the|its) (run|job|step)s?": "executor, directory",
    "name: (ask|let|make|say|see)": "a verb of the field: query, allow, create, report, read",
}
CODE = re.compile(r"(`+)[^`\n]+\1")
PATTERNS = [(re.compile(rf"\b(?:{words})\b".replace(" ", r"[\s#]+"), re.IGNORECASE), term) for words, term in WORDS.items()]


def problems(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, words and the term to use, in the order of the words above; code between backquotes does not count."""
    text = CODE.sub(lambda match: "`" * len(match[0]), text)
    for pattern, term in PATTERNS:
        for match in pattern.finditer(text):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), term


def released() -> set[str]:
    """The names of the changelog fragments that are in a release."""
    releases = yaml.safe_load(CHANGELOG.read_text(encoding="utf-8"))["releases"]
    return {name for release in releases.values() for name in release.get("fragments", ())}


def files(paths: Iterable[str]) -> Iterator[Path]:
    """Yield the text files at and below some paths."""
    history = released()
    for path in map(Path, paths):
        if not path.exists():
            sys.exit(f"{path} does not exist")
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in SUFFIXES and file.is_file() and not (file.parent.name == "fragments" and file.name in history):
                yield file


def main(paths: list[str]) -> int:
    count = found = 0
    for file in files(paths):
        count += 1
        for line, words, term in sorted(problems(file.read_text(encoding="utf-8"))):
            found += 1
            print(f'{file}:{line}: "{words}": {term}', file=sys.stderr)
    print(f"{count} files, {found} words not to use")
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
