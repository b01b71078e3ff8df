#!/usr/bin/env python3
"""Compiles the CUDA kernels ahead of time, without nvcc and without a GPU.

Each `.cu` file becomes one fatbin: machine code for every architecture of `SASS`, and the PTX of `PTX_ARCH`, which the
driver compiles for GPUs that are younger than this package. The fatbins are committed with `manifest.json`, which holds
the hashes of the sources, so that a clone needs none of this and a test sees when a fatbin is stale.

NVRTC (CUDA C++ to PTX), ptxas (PTX to machine code) and nvFatbin (the container) come as pinned wheels.
"""

import argparse
import ctypes
import fnmatch
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# A kernel that matches the pattern must hold the instruction from the architecture on. Losing tensor cores does not
# change a result, so that no other test would see it.
REQUIRED = [
    ("gemm_*", "HMMA", 80),
    ("mix_*", "HMMA", 80),
    ("wgmma_*", "HGMMA", 90),
]

# Machine code runs within its major version: 90 is for that one alone, 100 also serves 103 and 120 also serves 121.
SASS = [75, 80, 86, 89, 90, 100, 120]
# A source whose name ends in _sm90a holds Hopper's own instructions, which no other GPU runs: no PTX either.
HOPPER, HOPPER_SUFFIX = "90a", "_sm90a"
# No PTX for compute_75: the only such GPUs are sm_75, which has machine code, and everything younger takes compute_80.
PTX_ARCH = 80

NVRTC_FLAGS = ["--std=c++17", "-I.", "-Iinclude"]
PTXAS_FLAGS = ["-v", "-O3"]
# Everything is compressed in the default mode, which drivers from 525 on read; `-compress-mode=size` would need 550.
FATBIN_FLAGS = ["-64", "-compress-all", "-cuda", "-host=linux"]

# What one multiprocessor holds: threads, blocks, bytes of shared memory, bytes that the system takes from each block,
# and the unit in which shared memory is given out. CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability".
MULTIPROCESSOR = {
    75: (1024, 16, 64 << 10, 0, 256),
    80: (2048, 32, 164 << 10, 1024, 128),
    86: (1536, 16, 100 << 10, 1024, 128),
    89: (1536, 24, 100 << 10, 1024, 128),
    90: (2048, 32, 228 << 10, 1024, 128),
    100: (2048, 32, 228 << 10, 1024, 128),
    120: (1536, 24, 100 << 10, 1024, 128),
    HOPPER: (2048, 32, 228 << 10, 1024, 128),
}
# The same on all of them: registers in a multiprocessor and in a block, the unit for a warp, and its four partitions.
REGISTERS, REGISTER_UNIT, PARTITIONS = 65536, 256, 4

COUNTED = ["HMMA", "HGMMA", "LDGSTS", "LDSM", "LDL", "STL"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CRATE = Path("crates/lucid-kernels")
TABLE = Path("docs/kernels-table.md")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# The compilers


def install(cache, name, requirements):
    """Installs pinned wheels into a folder named after their hashes; a folder that is there is complete."""
    wanted = HERE / requirements
    folder = cache / f"{name}-{sha256(wanted.read_bytes())[:12]}"
    if folder.exists():
        return folder
    print(f"[kernels] installing {name} …", file=sys.stderr)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fresh = Path(scratch) / name
        options = ["--quiet", "--disable-pip-version-check", "--no-compile", "--only-binary", ":all:"]
        pinned = ["--no-deps", "--require-hashes", "--target", str(fresh), "-r", str(wanted)]
        environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
        if subprocess.run([sys.executable, "-m", "pip", "install", *options, *pinned], env=environment).returncode:
            sys.exit(f"pip could not install {requirements}: see above (pip comes with python3-pip or python3-venv)")
        fresh.rename(folder)
    return folder


class Tools:
    """Paths only, so that worker processes can be given them."""

    def __init__(self, cache):
        current = install(cache, "cuda-12.9", "requirements.txt")
        oldest = install(cache, "nvrtc-12.0", "requirements-ptx.txt")
        self.nvrtc = current / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
        self.nvrtc_ptx = oldest / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
        self.ptxas = current / "nvidia/cuda_nvcc/bin/ptxas"
        self.nvfatbin = current / "nvidia/nvfatbin/lib/libnvfatbin.so.12"
        self.nvdisasm = current / "nvidia/cu13/bin/nvdisasm"


def strings(values):
    return (ctypes.c_char_p * len(values))(*[value.encode() for value in values])


def nvrtc(library, source, arch):
    """CUDA C++ to PTX; returns the PTX, or None, and what the compiler had to say."""
    lib = ctypes.CDLL(str(library))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    text = (source.read_text(encoding="utf-8") + "\n").encode()
    # Headers are found from the working directory, so that no path of this machine enters the PTX.
    if lib.nvrtcCreateProgram(ctypes.byref(program), text, source.name.encode(), 0, None, None):
        sys.exit(f"NVRTC refuses to start on {source.name}")
    flags = [f"--gpu-architecture=compute_{arch}", *NVRTC_FLAGS]
    failed = lib.nvrtcCompileProgram(program, len(flags), strings(flags))

    def read(kind):
        getattr(lib, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(lib, f"nvrtcGet{kind}")(program, buffer)
        return buffer.raw.rstrip(b"\0")

    log = read("ProgramLog").decode(errors="replace").strip()
    ptx = None if failed else read("PTX")
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx, log


def entries(ptx):
    """Kernel names of a PTX module, with the block size of their launch bounds."""
    found = {}
    for name, directives in re.findall(r"^\.visible \.entry (\w+)\(.*?\)(.*?)\{", ptx.decode(), re.S | re.M):
        size = re.search(r"\.maxntid\s+([\d, ]+)", directives)
        threads = 1
        for dimension in size.group(1).split(",") if size else []:
            threads *= int(dimension)
        found[name] = threads if size else None
    return found


def resources(log):
    """What `ptxas -v` says about each kernel, summed over the functions that it calls and that were not inlined."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        numbers = {
            "registers": r"Used (\d+) registers",
            "shared": r"(\d+) bytes smem",
            "stack": r"(\d+) bytes stack frame",
            "spill_stores": r"(\d+) bytes spill stores",
            "spill_loads": r"(\d+) bytes spill loads",
        }
        matches = {key: re.findall(pattern, part) for key, pattern in numbers.items()}
        found[part.split("'")[0]] = {key: sum(map(int, match)) for key, match in matches.items()}
    return found


def instructions(listing):
    """Counts of the `COUNTED` instructions in each kernel of an nvdisasm listing, with the functions that it calls."""
    found = {}
    for part in re.split(r"^\s*\.section\s+", listing, flags=re.M)[1:]:
        name = re.match(r"\.text\.(\w+)", part)
        if name:
            names = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?(\w+)", part, re.M)
            found[name.group(1)] = {counted.lower(): names.count(counted) for counted in COUNTED}
    return found


def occupancy(arch, threads, registers, shared):
    """Blocks that fit on a multiprocessor by registers, static shared memory and threads; the share of its warps."""
    most_threads, most_blocks, memory, reserved, unit = MULTIPROCESSOR[arch]
    warps = -(-threads // 32)
    for_warp = -(-registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
    for_block = -(-(shared + reserved) // unit) * unit
    blocks = min(
        most_blocks,
        most_threads // 32 // warps,
        REGISTERS // PARTITIONS // for_warp * PARTITIONS // warps,
        memory // for_block if for_block else most_blocks,
    )
    return blocks, round(100 * blocks * warps * 32 / most_threads)


def compile_one(tools, source, arch, as_ptx):
    """One source for one architecture: the code, the reports, and errors and warnings as text. Runs in a worker."""
    os.chdir(source.parent)
    label = f"{source.name} for {'PTX compute' if as_ptx else 'sm'}_{arch}"
    result = {"label": label, "code": None, "kernels": {}, "warnings": "", "errors": []}
    ptx, log = nvrtc(tools.nvrtc_ptx if as_ptx else tools.nvrtc, source, arch)
    if ptx is None:
        result["errors"].append(f"{label} does not compile:\n{log}")
        return result
    result["warnings"] = log
    if as_ptx:
        kernels = {name: {"threads": threads} for name, threads in entries(ptx).items()}
        return {**result, "code": ptx, "kernels": kernels}

    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "k.ptx").write_bytes(ptx)
        command = [str(tools.ptxas), *PTXAS_FLAGS, f"-arch=sm_{arch}", "k.ptx", "-o", "k.cubin"]
        ptxas = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if ptxas.returncode:
            result["errors"].append(f"{label}: ptxas fails:\n{ptxas.stderr.strip()}")
            return result
        result["code"] = Path(scratch, "k.cubin").read_bytes()
        command = [str(tools.nvdisasm), "-c", "k.cubin"]
        listing = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=True).stdout
    warnings = [line for line in ptxas.stderr.splitlines() if "warning" in line.lower()]
    result["warnings"] = "\n".join(filter(None, [log, *warnings]))

    used, counts = resources(ptxas.stderr), instructions(listing)
    kernels = entries(ptx)
    if kernels.keys() != counts.keys():
        outside = sorted(kernels.keys() ^ counts.keys())
        result["errors"].append(f"{label}: code outside of kernels, which cannot be judged: {outside}")
        return result
    for name, threads in kernels.items():
        kernel = {"threads": threads, **used[name], **counts[name]}
        if threads:
            fit = occupancy(arch, threads, kernel["registers"], kernel["shared"])
            kernel["blocks_per_multiprocessor"], kernel["occupancy_percent"] = fit
        result["kernels"][name] = kernel
        result["errors"] += [f"{source.name}: {name} for sm_{arch} {fault}" for fault in faults(name, arch, kernel)]
    return result


# Gates

SPILL_HINT = "ptxas spills to fit more blocks; __launch_bounds__(threads, 1) gives it the registers"


def number(arch):
    return int(str(arch).rstrip("a"))


def architectures(file):
    """What a source is compiled to machine code for."""
    return [HOPPER] if file.stem.endswith(HOPPER_SUFFIX) else SASS


def faults(name, arch, kernel):
    """Why a compiled kernel must not be committed."""
    if kernel["spill_stores"] or kernel["spill_loads"]:
        yield f"spills registers: {kernel['spill_stores']} bytes stored, {kernel['spill_loads']} loaded ({SPILL_HINT})"
    elif kernel["ldl"] or kernel["stl"]:
        why = "an array with an index that is not known at compile time"
        yield f"uses local memory: {kernel['ldl']} LDL, {kernel['stl']} STL ({why}?)"
    for pattern, instruction, first in REQUIRED:
        if fnmatch.fnmatchcase(name, pattern) and number(arch) >= first and not kernel[instruction.lower()]:
            yield f"holds no {instruction}"
    if kernel["threads"] is None:
        yield "has no __launch_bounds__, so that neither registers nor occupancy can be judged"
        return
    warps = -(-kernel["threads"] // 32 // PARTITIONS) * PARTITIONS
    registers = -(-kernel["registers"] * 32 // REGISTER_UNIT) * REGISTER_UNIT * warps
    if registers > REGISTERS:
        yield f"needs {registers} registers for a block of {kernel['threads']} threads; there are {REGISTERS}"
    elif kernel["blocks_per_multiprocessor"] == 0:
        yield f"fits no multiprocessor: {kernel['shared']} bytes of static shared memory, {kernel['threads']} threads"


# What is written


def link(tools, file, results):
    """One fatbin from the code of every architecture."""
    name, archs = file.name, architectures(file)
    lib = ctypes.CDLL(str(tools.nvfatbin))
    handle, size = ctypes.c_void_p(), ctypes.c_size_t()

    def call(function, *arguments):
        if getattr(lib, function)(*arguments):
            sys.exit(f"{function} fails on {name}")

    call("nvFatbinCreate", ctypes.byref(handle), strings(FATBIN_FLAGS), ctypes.c_size_t(len(FATBIN_FLAGS)))
    for arch, result in zip(archs, results):
        code = result["code"]
        call("nvFatbinAddCubin", handle, code, ctypes.c_size_t(len(code)), str(arch).encode(), name.encode())
    for result in results[len(archs) :]:
        ptx = result["code"] + b"\0"
        call("nvFatbinAddPTX", handle, ptx, ctypes.c_size_t(len(ptx)), str(PTX_ARCH).encode(), name.encode(), b"")
    call("nvFatbinSize", handle, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    call("nvFatbinGet", handle, buffer)
    lib.nvFatbinDestroy(ctypes.byref(handle))
    return buffer.raw


def manifest_text(value, depth, indent=""):
    """JSON with sorted keys whose objects below `depth` levels take one line, so that a diff shows what changed."""
    if depth == 0 or not isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    inner = indent + "  "
    lines = [f"{inner}{json.dumps(key)}: {manifest_text(value[key], depth - 1, inner)}" for key in sorted(value)]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}" if lines else "{}"


def pinned(requirements):
    return [line.split()[0] for line in (HERE / requirements).read_text().splitlines() if "==" in line]


def describe(sources, fatbins, kernels):
    return {
        "compilers": {
            "flags": {"nvfatbin": FATBIN_FLAGS, "nvrtc": NVRTC_FLAGS, "ptxas": PTXAS_FLAGS},
            "ptx": pinned("requirements-ptx.txt"),
            "sass": pinned("requirements.txt"),
        },
        "fatbins": {f"{name}.fatbin": {"bytes": len(data), "sha256": sha256(data)} for name, data in fatbins.items()},
        "kernels": {
            name: {f"sm_{arch}": {"source": source, **kernel} for arch, kernel in per_arch.items()}
            for name, (source, per_arch) in kernels.items()
        },
        "ptx": [f"compute_{PTX_ARCH}"],
        "required": [
            {"from": first, "instruction": instruction, "kernels": pattern} for pattern, instruction, first in REQUIRED
        ],
        "sass": [f"sm_{arch}" for arch in SASS],
        "sources": sources,
    }


TABLE_HEAD = """# Kernels as compiled

Written by `npm run kernels:build`; do not edit.

## Compiler outputs, not measurements

These numbers are what the compilers say about each CUDA kernel; nothing here was run or timed. Registers are per
thread. Shared memory is the static part, in bytes: a kernel that is launched with dynamic shared memory holds more, which
is not known at compile time. Occupancy is computed for the block size of `__launch_bounds__`, from registers, static
shared memory and the limits of threads and blocks alone, so that it is an upper bound for a kernel with dynamic shared
memory. HMMA and HGMMA (tensor cores), LDGSTS (asynchronous copies) and LDSM (matrix loads) count instructions in the machine code,
not how often they run.
"""


def table(kernels):
    lines = [TABLE_HEAD]
    for source in sorted({source for source, _ in kernels.values()}):
        lines.append(f"## {source}\n")
        columns = "kernel|arch|block|registers|shared|spills|blocks per SM|occupancy|HMMA|HGMMA|LDGSTS|LDSM".split("|")
        lines += [f"| {' | '.join(columns)} |", "|---|---|" + "---:|" * (len(columns) - 2)]
        for name in sorted(name for name, (own, _) in kernels.items() if own == source):
            for arch, k in kernels[name][1].items():
                cells = [f"`{name}`", f"sm_{arch}", k["threads"], k["registers"], k["shared"]]
                cells += [k["spill_stores"] + k["spill_loads"], k["blocks_per_multiprocessor"]]
                cells += [f"{k['occupancy_percent']} %", k["hmma"], k["hgmma"], k["ldgsts"], k["ldsm"]]
                lines.append(f"| {' | '.join(map(str, cells))} |")
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Compiles the CUDA kernels into committed fatbins.")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds crates/lucid-kernels and docs")
    parser.add_argument("--tools", type=Path, default=ROOT / "target/kernels-tools", help="where compilers are kept")
    options = parser.parse_args()
    if sys.version_info < (3, 9) or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("Building the kernels needs Linux x86_64 and Python 3.9: the compilers are pinned for that alone.")
    root = options.root.resolve()
    cuda = root / CRATE / "src/cuda"
    files = sorted(cuda.glob("*.cu"))
    if not files:
        sys.exit(f"no .cu file in {CRATE / 'src/cuda'}")
    tools = Tools(options.tools.resolve())

    fatbins, kernels, errors = {}, {}, []
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:

        def targets(file):
            younger = [] if architectures(file) == [HOPPER] else [(PTX_ARCH, True)]
            return [(arch, False) for arch in architectures(file)] + younger

        jobs = {file: [pool.submit(compile_one, tools, file, *target) for target in targets(file)] for file in files}
        for file, futures in jobs.items():
            results = [future.result() for future in futures]
            for result in results:
                errors += result["errors"]
                if result["warnings"]:
                    print(f"[kernels] {result['label']}:\n{result['warnings']}", file=sys.stderr)
            if any(result["code"] is None for result in results):
                continue
            names = {tuple(sorted(result["kernels"])) for result in results}
            if len(names) != 1:
                errors.append(f"{file.name} does not hold the same kernels for every architecture")
                continue
            for name in names.pop():
                if name in kernels:
                    errors.append(f"{name} is in both {kernels[name][0]} and {file.name}")
                kernels[name] = file.name, {
                    arch: result["kernels"][name] for arch, result in zip(architectures(file), results)
                }
            fatbins[file.stem] = link(tools, file, results)
    if errors:
        sys.exit("\n".join(errors) + f"\n{len(errors)} faults; nothing was written")

    headers = [path for path in cuda.rglob("*") if path.suffix in (".cu", ".cuh")]
    sources = {path.relative_to(cuda).as_posix(): sha256(path.read_bytes()) for path in headers}
    out = root / CRATE / "fatbin"
    out.mkdir(parents=True, exist_ok=True)
    for stale in set(out.glob("*.fatbin")) - {out / f"{name}.fatbin" for name in fatbins}:
        stale.unlink()
    for name, data in fatbins.items():
        (out / f"{name}.fatbin").write_bytes(data)
    text = manifest_text(describe(sources, fatbins, kernels), 3)
    (out / "manifest.json").write_text(text + "\n", encoding="utf-8")
    (root / TABLE).parent.mkdir(parents=True, exist_ok=True)
    (root / TABLE).write_text(table(kernels), encoding="utf-8")
    size = sum(map(len, fatbins.values()))
    print(f"[kernels] {len(kernels)} kernels in {len(fatbins)} fatbins, {size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
