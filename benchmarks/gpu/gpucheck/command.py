"""The command line: runs the checks within their time, says what they find, and writes a report."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gpucheck import fast, right
from gpucheck.report import markdown, name_of
from gpucheck.setting import Check, Finding, Setting
from pemeta.utils.devices import resolve_device
from pemeta.utils.provenance import hardware, package_versions

LIMIT = 480
"""Seconds after which no further check begins."""
RESULTS, SMALL_RESULTS = Path(__file__).parents[1] / "results", Path("runs/gpu")
CHECKS: dict[str, Check] = {
    "same as the CPU": right.same_as_the_cpu,
    "waits": fast.waits,
    "steps": fast.steps,
    "repeats": right.repeats,
    "half precision": right.half_precision,
    "resumes": right.resumes,
    "tuning": fast.tuning,
    "savings": fast.savings,
    "exchanges": right.exchanges,
    "own tests": right.own_tests,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 where something that must hold does not."""
    options = _options(arguments)
    device = resolve_device(options.device)
    setting = Setting(device, options.small)
    chosen = options.only.split(",") if options.only else list(CHECKS)
    unknown = [name for name in chosen if name not in CHECKS]
    if unknown:
        raise SystemExit(f"error: unknown check {', '.join(unknown)}; known: {', '.join(CHECKS)}")
    found = [{"check": name, **finding} for name, finding in run_checks(setting, chosen, options.limit)]
    about = {
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d"),
        **hardware(device),
        "cuda": torch.version.cuda,
        "small": setting.small,
        "packages": package_versions(),
    }
    folder = options.out or (RESULTS if setting.cuda and not setting.small else SMALL_RESULTS)
    path = folder / f"{name_of(str(about['device']))}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about, "findings": found}, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(about, found), encoding="utf-8")
    wrong = [one for one in found if one.get("ok") is False]
    print(f"{path.with_suffix('.md')}: {len(found)} findings, {len(wrong)} of them wrong")
    return 1 if wrong else 0


def run_checks(setting: Setting, chosen: Sequence[str], limit: float = LIMIT) -> list[tuple[str, Finding]]:
    """What the checks find, in their order; one that fails is a finding, and those out of time are left out."""
    begun, found = time.monotonic(), []

    def say(name: str, finding: Finding) -> None:
        finding = {"at_second": round(time.monotonic() - begun, 1), **finding}
        found.append((name, finding))
        print(json.dumps({"check": name, **finding}, default=str), flush=True)

    for name in chosen:
        if time.monotonic() - begun > limit:
            say(name, {"left_out": "out of time"})
            continue
        try:
            for finding in CHECKS[name](setting):
                say(name, finding)
        except Exception as error:  # the others may still say something
            where = traceback.format_exc().splitlines()[-6:]
            say(name, {"ok": False, "error": f"{type(error).__name__}: {error}"[:400], "at": where})
        if setting.cuda:
            torch.cuda.empty_cache()
    return found


def _options(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(description="Ten checks of pemeta on one GPU, in at most eight minutes.")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, cpu; auto: a GPU if there is one")
    parser.add_argument("--small", action="store_true", help="sizes for a processor, to try the script itself")
    parser.add_argument("--only", metavar="CHECKS", help=f"names with commas between, of: {', '.join(CHECKS)}")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds after which no further check begins")
    parser.add_argument("--out", type=Path, help=f"folder; results/ beside run.py, or {SMALL_RESULTS} if small")
    return parser.parse_args(sys.argv[1:] if arguments is None else arguments)
