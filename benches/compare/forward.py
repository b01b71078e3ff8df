#!/usr/bin/env python3
"""Our forward pass of SigLIP B/16's image tower and PyTorch's, taking turns on the same machine; prints images/s and the ratios.

    python3 benches/compare/forward.py [--images 16] [--rounds 3] [--threads 2] [--venv DIR]

The weights are random, in the shape of google/siglip-base-patch16-224; the states of both are compared before anything is
timed. PyTorch runs transformers' own model with its fused attention, in batches of 1, 4 and 16; the fastest counts.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import run

SIZE = 224


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="how often the two take turns")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--venv", type=Path, default=run.HERE / ".venv", help="virtual environment to make or to use")
    return parser.parse_args()


def checkpoint(folder):
    """A random SigLIP B/16 in Hugging Face's layout, with the embedded backbone's tokenizer; returns its image tower."""
    import torch
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    config = SiglipConfig(
        vision_config={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                       "num_attention_heads": 12, "image_size": SIZE, "patch_size": 16},
        text_config={"hidden_size": 768, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 12,
                     "vocab_size": json.loads((MINI / "config.json").read_text())["text_config"]["vocab_size"]},
    )
    model = SiglipModel(config).eval()
    model.save_pretrained(folder, safe_serialization=True)
    shutil.copy(MINI / "tokenizer.json", folder)
    return model.vision_model


MINI = run.ROOT / "crates/lucid-vlm/mini"


def main():
    options = arguments()
    run.enter_environment(options.venv, "requirements-forward.txt")
    import numpy as np
    import torch

    torch.set_num_threads(options.threads)
    program = run.build("forward_time")
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        vision = checkpoint(work / "siglip")
        bytes_ = np.random.default_rng(0).integers(0, 256, (options.images, SIZE, SIZE, 3), dtype=np.uint8)
        (work / "pixels").write_bytes(bytes_.tobytes())
        pixels = torch.from_numpy(bytes_.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2).contiguous()

        def theirs(batch):
            with torch.inference_mode():
                return torch.cat([vision(pixels[i : i + batch]).last_hidden_state for i in range(0, options.images, batch)])

        def ours():
            command = [program, "--backbone", work / "siglip", "--pixels", work / "pixels", "--size", str(SIZE)]
            command += ["--rounds", "1", "--threads", str(options.threads), "--states", work / "states"]
            return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

        ours()
        states = np.fromfile(work / "states", "<f4").reshape(options.images, -1, 768)
        expected = theirs(4).numpy()
        error = np.abs(states - expected).max() / np.abs(expected).max()
        if error > 1e-4:
            raise SystemExit(f"the states differ by {error:.2e} of the largest")
        print(f"states agree to {error:.1e} of the largest", flush=True)

        batches = [size for size in (1, 4, 16) if size <= options.images]
        times = {f"PyTorch, batches of {size}": [] for size in batches} | {"lucid-sae": []}
        for index in range(options.rounds):
            for size in batches:
                theirs(size)  # the caches hold the other program's data
                start = time.perf_counter()
                theirs(size)
                times[f"PyTorch, batches of {size}"].append(options.images / (time.perf_counter() - start))
            times["lucid-sae"].append(ours()["imagesPerSecond"])
            print(f"round {index + 1}: " + ", ".join(f"{name} {v[-1]:.2f}" for name, v in times.items()), flush=True)

    print(f"\nSigLIP B/16 224, f32, {options.threads} threads, PyTorch {torch.__version__}\n")
    print("| forward | images/s, median (least – most) | ours over it, each round |")
    print("|---|---|---|")
    for name, values in times.items():
        ratios = ", ".join(f"{o / v:.2f}" for o, v in zip(times["lucid-sae"], values))
        print(f"| {name} | {statistics.median(values):.2f} ({min(values):.2f} – {max(values):.2f}) | {ratios} |")


if __name__ == "__main__":
    main()
