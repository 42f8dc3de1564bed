"""The command line: runs groups, writes records after each race, and at the end the table and the plots."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speedbench.cases import Group
from speedbench.groups import full, quick, with_rounds
from speedbench.machine import about
from speedbench.race import mismatches, run_race
from speedbench.records import Records
from speedbench.table import markdown
from speedbench.targets import lines

RESULTS = Path(__file__).parents[1] / "results"
QUICK_RESULTS = Path("runs/speed-quick")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, 1 where gradients that should be equal are not, 130 where it was interrupted."""
    options = _options(arguments)
    groups = {group.name: group for group in (quick() if options.quick else full())}
    chosen = options.only.split(",") if options.only else list(groups)
    unknown = [name for name in chosen if name not in groups]
    if unknown:
        raise SystemExit(f"error: unknown group {', '.join(unknown)}; known: {', '.join(groups)}")
    records = Records(options.out or (QUICK_RESULTS if options.quick else RESULTS))
    interrupted = False
    try:
        for name in [] if options.report else chosen:
            group = with_rounds(groups[name], options.rounds) if options.rounds else groups[name]
            run_group(group, records, options.device, options.resume)
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, and --resume goes on from there")
        interrupted = True
    wrong = report(records, list(groups))
    return 130 if interrupted else 1 if wrong else 0


def run_group(group: Group, records: Records, device: str, resume: bool) -> None:
    """Run a group's races; its record is written anew after each."""
    before = records.read(group.name) if resume else None
    done = {race["race"]: race for race in (before or {"races": []})["races"]}
    record: dict[str, Any] = {"group": group.name, "title": group.title, "about": about(device), "races": []}
    for race in group.races:
        if race.name in done:
            record["races"].append(done[race.name])
            records.write(record)
            continue
        print(f"==> {group.name}: {race.name}", flush=True)
        started = time.perf_counter()
        record["races"].append(run_race(race, device, _say))
        records.write(record)
        print(f"    {time.perf_counter() - started:.0f} s", flush=True)


def report(records: Records, groups: list[str]) -> list[str]:
    """Write the table and the plots, print the targets; returns the cases whose gradients are wrong."""
    found = [record for name in groups if (record := records.read(name)) is not None]
    if not found:
        return []
    (records.folder / "table.md").write_text(markdown(records), encoding="utf-8")
    try:
        from speedbench.plots import draw

        draw(records)
    except ImportError as error:
        print(f"no plots: {error}")
    print("\nTargets")
    for what, target, measured, state in (line.cells for line in lines(records)):
        print(f"  {what:<70} {target:>10} {measured:>10}  {state.strip('*')}")
    wrong = [words for record in found for words in mismatches(record)]
    if wrong:
        print("\nGRADIENTS DIFFER where they must be equal:", *wrong, sep="\n  ")
    print(f"\n{records.folder}/table.md")
    return wrong


def _say(words: str) -> None:
    print(words, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and memory of one outer step of priming, against others.")
    parser.add_argument("--quick", action="store_true", help="the targets' lines on the MiniLM shape, in minutes")
    parser.add_argument("--only", metavar="GROUPS", help="names with commas between; the others' results stay")
    parser.add_argument("--rounds", type=int, help="timed rounds of each race, in place of its own number")
    parser.add_argument("--out", type=Path, help=f"folder; results/ beside run.py, or {QUICK_RESULTS}")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--resume", action="store_true", help="leave races alone that the results have")
    parser.add_argument("--report", action="store_true", help="measure nothing; write the table and the plots anew")
    return parser.parse_args(arguments)
