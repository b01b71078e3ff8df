#!/usr/bin/env python3
"""Our training step and two in PyTorch, taking turns on the same machine; prints µs/token and the ratios.

    python3 benches/compare/run.py [--pairs 32] [--tokens 64] [--rounds 3] [--threads 2] [--venv DIR]

Makes a virtual environment with requirements.txt, checks both PyTorch steps against the project's fixture, builds
`step_time` in release mode, and then times rounds of: PyTorch dense, PyTorch sparse, ours. Every program makes an
uncounted step first. Batch, shapes, objective, optimiser and number of threads are the same for all three.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FIXTURE = ROOT / "crates/lucid-sae/tests/fixtures/step-model.safetensors"
SHAPE = {"width": 768, "patches": 196}
CONFIG = {
    "dShared": 1536, "dPrivate": 4608, "kShared": 16, "kPrivate": 32, "alpha": 1.0, "beta": 0.5, "gamma": 0.3,
    "epsilon": 0.1, "iterations": 10, "massReweighting": True, "lambdaGlobal": 0.5,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=32, help="pairs of a step (one micro-batch)")
    parser.add_argument("--tokens", type=int, default=64, help="text tokens of a pair")
    parser.add_argument("--rounds", type=int, default=3, help="how often the three take turns")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--venv", type=Path, default=HERE / ".venv", help="virtual environment to make or to use")
    return parser.parse_args()


def enter_environment(venv, listed="requirements.txt"):
    """Runs this script again inside the virtual environment, which it makes where it is missing."""
    python = venv / "bin" / "python"
    if Path(sys.prefix).resolve() == venv.resolve():
        return
    done = venv / f"lucid-compare-{listed}"
    requirements = (HERE / listed).read_text()
    if not python.exists():
        print(f"making {venv}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    if not done.exists() or done.read_text() != requirements:
        print(f"installing {listed}", flush=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(HERE / listed)], check=True)
        done.write_text(requirements)
    os.execv(python, [str(python), *sys.argv])


def build(name):
    """Builds a program of the benchmarks and returns its path."""
    command = ["cargo", "build", "--release", "-p", "lucid-benches", "--bin", name, "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in output.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    raise SystemExit(f"cargo built no {name}")


def our_step(program, options):
    command = [program, "--json", "--steps", "3", "--pairs", str(options.pairs), "--tokens", str(options.tokens)]
    command += ["--micro-pairs", str(options.pairs), "--threads", str(options.threads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    options = arguments()
    enter_environment(options.venv)
    import torch

    import lucid_torch

    torch.set_num_threads(options.threads)
    lucid_torch.self_test(FIXTURE)
    program = build("step_time")

    trainers = [
        lucid_torch.Trainer(
            kind, CONFIG, **SHAPE, tokens=options.tokens, pairs=options.pairs, micro_pairs=options.pairs
        )
        for kind in (lucid_torch.Dense, lucid_torch.Sparse)
    ]
    times = {trainer.codes.name: [] for trainer in trainers} | {"lucid-sae": []}
    for trainer in trainers:
        trainer.step()
        trainer.step()
    for round_index in range(options.rounds):
        for trainer in trainers:
            trainer.step()  # the caches hold the other program's data
            start = time.perf_counter()
            trainer.step()
            times[trainer.codes.name].append((time.perf_counter() - start) * 1e6 / trainer.tokens)
        ours = our_step(program, options)
        times["lucid-sae"].append(ours["usPerToken"]["median"])
        line = ", ".join(f"{name} {values[-1]:.1f}" for name, values in times.items())
        print(f"round {round_index + 1}: {line} µs/token", flush=True)

    print(f"\n{options.pairs} pairs of {SHAPE['patches']} patches and {options.tokens} tokens a step, width 768,")
    print(f"1536 + 4608 latents, k 16 + 32; {options.threads} threads; PyTorch {torch.__version__}; AdamW included\n")
    print("| step | µs/token, median (least – most) | of ours | ratio of each round |")
    print("|---|---|---|---|")
    ours_values = times["lucid-sae"]
    for name, values in times.items():
        ratios = [theirs / ours for theirs, ours in zip(values, ours_values)]
        spread = f"{statistics.median(values):.1f} ({min(values):.1f} – {max(values):.1f})"
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {name} | {spread} | {statistics.median(ratios):.2f} × | {each} |")
    peak, bound = ours["peakBytes"], ours["boundBytes"]
    if peak:
        print(f"\npeak memory of our step: {peak / 2**20:.0f} MiB (bound {bound / 2**20:.0f} MiB)")


if __name__ == "__main__":
    main()
