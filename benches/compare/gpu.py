#!/usr/bin/env python3
"""The training step in PyTorch on a CUDA device: dense and sparse codes, in several precisions; prints ms a step.

    python3 benches/compare/gpu.py [--pairs 256] [--tokens 64] [--steps 8] [--compile] [--out DIR]

Takes the PyTorch of the Python that runs it. Batch, shapes, objective and optimiser are those of `run.py` and of
`gpu_check`, whose step stands beside these. The median of the steps is given, each waited for, after three that are
not counted. `--compile` times the dense step under torch.compile too (a minute to compile each).
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path

import torch

import lucid_torch
from run import CONFIG, FIXTURE, SHAPE

KINDS = {"dense": lucid_torch.Dense, "sparse": lucid_torch.Sparse}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=64, help="text tokens of a pair")
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed")
    parser.add_argument("--compile", action="store_true", help="the dense step under torch.compile as well")
    parser.add_argument("--out", type=Path, help="folder for gpu-torch.json and gpu-torch.md")
    return parser.parse_args()


def timed(options, kind, precision, compiled):
    """Milliseconds of each step, the last loss, and the most memory taken."""
    torch.set_float32_matmul_precision("highest" if precision == "f32" else "high")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer = lucid_torch.Trainer(
        KINDS[kind], CONFIG, **SHAPE, tokens=options.tokens, pairs=options.pairs, micro_pairs=options.pairs, device="cuda"
    )
    losses = torch.compile(lucid_torch.step_losses) if compiled else lucid_torch.step_losses

    def half(*arguments):
        with torch.autocast("cuda", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            return losses(*arguments)

    times = []
    for step in range(options.steps + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        loss = trainer.step(half)
        torch.cuda.synchronize()
        if step >= 3:
            times.append(1e3 * (time.perf_counter() - start))
    return times, loss, torch.cuda.max_memory_allocated()


def main():
    options = arguments()
    if not torch.cuda.is_available():
        print("not run: PyTorch finds no CUDA device")
        sys.exit(0)
    lucid_torch.self_test(FIXTURE)
    runs = [(kind, precision, False) for kind in KINDS for precision in ("f32", "tf32", "bf16")]
    if options.compile:
        runs += [("dense", precision, True) for precision in ("tf32", "bf16")]
    device = torch.cuda.get_device_name()
    lines = [
        f"# PyTorch's training step on {device}",
        "",
        f"{options.pairs} pairs of {SHAPE['patches']} patches and {options.tokens} tokens, width {SHAPE['width']}, 1536 + 4608",
        f"latents, k 16 + 32, AdamW included; PyTorch {torch.__version__}; median of {options.steps} steps (least – most).",
        "",
        "| codes | precision | ms a step | GiB | loss |",
        "|---|---|--:|--:|--:|",
    ]
    print("\n".join(lines), flush=True)
    found = []
    for kind, precision, compiled in runs:
        name = f"{kind}, torch.compile" if compiled else kind
        try:
            times, loss, peak = timed(options, kind, precision, compiled)
        except Exception as error:  # a version of PyTorch may lack one of them: the others still count
            line = f"| {name} | {precision} | did not run: {type(error).__name__}: {str(error).splitlines()[0][:80]} | | |"
        else:
            spread = f"{statistics.median(times):.1f} ({min(times):.1f} – {max(times):.1f})"
            line = f"| {name} | {precision} | {spread} | {peak / 2**30:.1f} | {loss:.4f} |"
            found.append({"codes": name, "precision": precision, "milliseconds": times, "loss": loss, "peakBytes": peak})
        print(line, flush=True)
        lines.append(line)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        report = {"device": device, "torch": torch.__version__, "runs": found}
        (options.out / "gpu-torch.json").write_text(json.dumps(report, indent=1) + "\n")
        (options.out / "gpu-torch.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
