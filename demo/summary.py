# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what the demo did, from the run's manifest in S3, and write it to .demo/summary.json.

S3's endpoint, region and credentials come from the environment: AWS_ENDPOINT_URL, AWS_DEFAULT_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from shards import Failure
from shards.stores import S3

# The run of make demo.
RUN = "default"
METRICS = ("test_accuracy", "train_steps", "steps_per_second", "examples_per_second")


def read_manifest(models: str, run: str) -> dict:
    """The manifest of a run's export, which is written when all else is verified."""
    store = S3(f"{models}/{run}")
    if "manifest.json" not in store.digests():
        raise Failure(f"{store.url}/manifest.json is not there, so the model is not exported: run playbooks/site.yml")
    return json.loads(store.get("manifest.json"))


def summarize(manifest: dict, seconds: dict, endpoint: str | None) -> dict:
    """The summary, with ``seconds`` where they are known."""
    if missing := [name for name in METRICS if name not in manifest["metrics"]]:
        raise Failure(f"the run's metrics.json lacks {', '.join(missing)}: its training command must write them")
    return {
        "model_uri": manifest["model_uri"],
        "endpoint_url": endpoint,
        **{name: manifest["metrics"][name] for name in METRICS},
        **seconds,
        "events_url": manifest["events_url"],
    }


def took(stages: Path, started: Path) -> dict:
    """The seconds of the stages and of all."""
    return {
        "stage_seconds": json.loads(read(stages)),
        "wall_seconds": round(time.time() - float(read(started)), 1),
    }


def readable(summary: dict) -> str:
    rows = {
        "Model": summary["model_uri"],
        "S3 server": summary["endpoint_url"] or "AWS",
        "Test accuracy": f"{summary['test_accuracy']:.4f}",
        "Training": f"{summary['train_steps']} steps, {summary['steps_per_second']:.1f} steps/s, "
        f"{summary['examples_per_second']:.0f} examples/s",
        "TensorBoard": summary["events_url"] or "no events",
    }
    if "wall_seconds" in summary:
        rows["Stages"] = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in summary["stage_seconds"].items())
        rows["In all"] = f"{summary['wall_seconds']:.0f} s"
    return "\n".join(f"{name:<14} {value}" for name, value in rows.items())


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} cannot be read ({error.strerror}): run make demo") from error


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default=RUN, help="the run's name (%(default)s)")
    parser.add_argument("--models", default="s3://deeptrain/models", metavar="URL", help="exports (%(default)s)")
    parser.add_argument(
        "--stages", type=Path, default=".demo/stages.json", metavar="FILE", help="seconds by stage (%(default)s)"
    )
    parser.add_argument(
        "--started", type=Path, default=".demo/started", metavar="FILE", help="start, Unix seconds (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=".demo/summary.json", metavar="FILE", help="(%(default)s)")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    summary = summarize(
        read_manifest(options.models, options.run),
        # The files are those of the last make demo.
        took(options.stages, options.started) if options.run == RUN else {},
        os.environ.get("AWS_ENDPOINT_URL"),
    )
    options.output.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(readable(summary))
    print(f"The same is in {options.output}.")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"summary.py: {failure}")
