"""Fuzz one target, or all of them: `python -m fuzz [TARGET ...] [--seconds 60] [--seed 1]`.

The interpreter tells how much of our code an input reaches, and libFuzzer keeps what reaches more. A finding is a
traceback and a file with the bytes, `crash-...`, which `python -m fuzz TARGET --input FILE` runs again.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

TOGETHER = "together"


def fuzz(name: str, options: list[str]) -> None:
    """Fuzz a target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["mlexporter"]):
        from fuzz.targets import TARGETS, together

    target = together() if name == TOGETHER else TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, content in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(content)
        limits = ["-max_len=16384", "-timeout=10", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *options, *limits, corpus], target.run)
        atheris.Fuzz()


def main() -> int:
    """Fuzz each target in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz the decoders.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="run the target once, with the bytes of this file")
    parser.add_argument("--together", type=int, metavar="RUNS", help="all targets in one process, as CI does")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.together:
        fuzz(TOGETHER, [f"-runs={arguments.together}", f"-seed={arguments.seed}"])
    if arguments.here:
        fuzz(arguments.targets[0], [f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}"])
    from fuzz.targets import TARGETS

    if arguments.input:
        TARGETS[arguments.targets[0]].run(arguments.input.read_bytes())
        return 0
    failed = []
    for name in arguments.targets or TARGETS:
        print(f"--- {name}", flush=True)
        options = [f"--seconds={arguments.seconds}", f"--seed={arguments.seed}", "--here"]
        if subprocess.run([sys.executable, "-m", "fuzz", name, *options], check=False).returncode:
            failed.append(name)
    print(f"found something: {', '.join(failed)}" if failed else "found nothing")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
