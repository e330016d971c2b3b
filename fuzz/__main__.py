"""Fuzz one target, or all of them, each for so many seconds: `python -m fuzz [TARGET ...] [--seconds 60] [--seed 1]`.

The interpreter says how much of our code an input reaches, and libFuzzer keeps what reaches more. A finding is a traceback
and a file with its bytes, `crash-...`.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def fuzz(name: str, seconds: int, seed: int) -> None:
    """Fuzz a target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["mlexporter"]):
        from fuzz.targets import TARGETS

    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, content in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(content)
        options = [f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *options, corpus], target.run)
        atheris.Fuzz()


def main() -> int:
    """Fuzz each target in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz the decoders.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        fuzz(arguments.targets[0], arguments.seconds, arguments.seed)
        return 0
    from fuzz.targets import TARGETS

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
