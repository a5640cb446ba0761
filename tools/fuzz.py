"""Fuzz everything that touches a model file, a run directory or rows, and say how each input ended.

    python tools/fuzz.py --inputs 20000 --seed 0 --jobs 2
    python tools/fuzz.py --inputs 1000 --kind runs --jobs 2    # damaged run directories alone
    python tools/fuzz.py --atheris fuzz-corpus    # coverage-guided, where atheris is installed

Each model is read, taken apart and written, loaded, inspected, and operated on by one surgery, in a process that may
take 10 seconds of a processor and 1 GB; each run is read, compared, reported and resumed; on each table, array or
folder of images a network is evaluated; models in which the batch moves about are computed beside the file, and
widened. It must end in a result or a named error; what ends otherwise is saved, made smaller where that is easy, and
listed. Inputs depend on kind, seed and index alone.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODELS = ("bytes", "structure")
KINDS = (*MODELS, "data", "moved", "runs")
# Of twenty inputs, so many of each: a run takes some hundred times as long as a model.
MIXED = (*MODELS * 7, *("data",) * 4, "moved", "runs")
sys.path[:0] = [str(HERE), str(HERE.parent)]


def main() -> int:
    """Parse the options and run; 1 where a bug was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0, help="index of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=("all", "both", *KINDS), default="all", help="both: of models")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("fuzz-bugs"), help="folder for inputs that found bugs")
    parser.add_argument("--atheris", type=Path, metavar="FOLDER", help="run atheris on a corpus in FOLDER instead")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        from fuzzing.workers import work

        work(options.kind)
        return 0
    if options.atheris:
        from fuzzing.guided import guided

        return guided(options.atheris)
    return fuzz(options)


def fuzz(options: argparse.Namespace) -> int:
    """Run all inputs on ``options.jobs`` processes and print the table."""
    from fuzzing.workers import Worker

    kinds = {"all": MIXED, "both": MODELS}.get(options.kind, (options.kind,))
    indices = range(options.start, options.start + options.inputs)
    requests = [{"kind": kinds[i % len(kinds)], "seed": options.seed, "index": i} for i in indices]
    start = time.perf_counter()

    def share(number: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        worker, done = Worker(options.kind), []
        for position, request in enumerate(requests[number :: options.jobs]):
            done.append((request, worker.run(request)))
            if done[-1][1]["kind"] == "BUG":
                print(f"{request['kind']} {request['index']}: {done[-1][1]['what']}", flush=True)
            if position % 2000 == 1999:
                print(f"job {number}: {position + 1} done after {time.perf_counter() - start:.0f} s", flush=True)
        worker.stop()
        return done

    with ThreadPoolExecutor(options.jobs) as pool:
        ended = [pair for done in pool.map(share, range(options.jobs)) for pair in done]
    bugs = [(request, answer) for request, answer in ended if answer["kind"] == "BUG"]
    _print_table(ended, time.perf_counter() - start)
    for request, answer in bugs:
        if request["kind"] not in MODELS:  # a folder, which its kind, seed and index make again
            print(f"BUG {request['kind']} {request['index']}: {answer['what']}")
    models = [(request, answer) for request, answer in bugs if request["kind"] in MODELS]
    if models:
        _keep(models, options.output)
    return 1 if bugs else 0


def _print_table(ended: list[tuple[dict[str, Any], dict[str, Any]]], seconds: float) -> None:
    print(f"\n{'kind':<12}{'inputs':>8}{'result':>8}{'error':>8}{'BUG':>6}{'slowest':>10}{'most memory':>13}")
    for kind in sorted({request["kind"] for request, _ in ended}):
        answers = [answer for request, answer in ended if request["kind"] == kind]
        counts = Counter(answer["kind"] for answer in answers)
        slowest, most = max(a["seconds"] for a in answers), max(a["peak"] for a in answers) / 2**20
        numbers = f"{len(answers):>8}{counts['result']:>8}{counts['error']:>8}{counts['BUG']:>6}"
        print(f"{kind:<12}{numbers}{slowest:>8.2f} s{most:>10.0f} MB")
    print(f"{len(ended)} inputs in {seconds:.0f} s")
    longest = max((answer["seconds"] for _, answer in ended), default=0.0)
    peak = max((answer["peak"] for _, answer in ended), default=0) / 2**20
    print(f"longest time {longest:.2f} s, peak memory {peak:.0f} MB above the imports' own")
    errors = Counter(_class(answer["what"]) for _, answer in ended if answer["kind"] == "error")
    print(f"\n{len(errors)} kinds of named errors; the most frequent:")
    for text, count in errors.most_common(25):
        print(f"{count:>7}  {text}")


def _class(text: str) -> str:
    """An error's text without what differs from input to input."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|b'.*'|/\S+(?<!:)", "…", text)
    return re.sub(r"-?\d+", "#", text)[:110]


def _keep(bugs: list[tuple[dict[str, Any], dict[str, Any]]], folder: Path) -> None:
    """Save one input of every bug, made smaller, and list them."""
    from fuzzing.pipeline import make_input
    from fuzzing.shrink import shrink
    from fuzzing.workers import Worker

    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[dict[str, Any]]] = {}
    for request, answer in bugs:
        groups.setdefault(_class(answer["what"]), []).append(request)
    print(f"\n{len(bugs)} inputs found {len(groups)} bugs, saved in {folder}:")
    worker = Worker()
    for text, requests in groups.items():
        content = min((make_input(**request) for request in requests[:20]), key=len)
        with tempfile.TemporaryDirectory() as name:
            trial = Path(name) / "trial.onnx"

            def same(candidate: bytes, trial: Path = trial, text: str = text) -> bool:
                trial.write_bytes(candidate)
                answer = worker.run({"path": str(trial)})
                return answer["kind"] == "BUG" and _class(answer["what"]) == text

            content = shrink(content, same)
        path = folder / f"{requests[0]['kind']}-{requests[0]['index']}-{hashlib.sha256(content).hexdigest()[:8]}.onnx"
        path.write_bytes(content)
        print(f"{len(requests):>7}  {text}\n         {path.name}, {len(content)} bytes")
    worker.stop()


if __name__ == "__main__":
    sys.exit(main())
