"""Cases of the benches beside PyTorch's counterparts, by turns in one run.

    python benches/compare.py [WORD ...]

needs torch (and for `unet_step` diffusers) and prints how many times PyTorch's time each case takes; words choose cases
by their names. Both use as many threads as the machine has, or as RAYON_NUM_THREADS says.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("benches/compare.py: found no torch, wanted it to compare with; `pip install torch`")

ROUNDS = 3
ROOT = Path(__file__).parent.parent


def attention(keys):
    query, key, value = torch.randn(1, 8, 4096, 40), torch.randn(1, 8, keys, 40), torch.randn(1, 8, keys, 40)
    return [lambda: F.scaled_dot_product_attention(query, key, value)]


def convolution(channels, side):
    x, weight = torch.randn(1, channels, side, side), torch.randn(channels, channels, 3, 3)
    last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight)]
    return [lambda: F.conv2d(x, weight, padding=1), lambda: F.conv2d(*last, padding=1)]


def unary(shape, f):
    x = torch.randn(shape)
    return [lambda: f(x)]


def geglu(x):
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def group_norm(x):
    return F.silu(F.group_norm(x, 32, torch.ones(320), torch.ones(320)))


def linear(tokens, inputs, outputs):
    x, weight = torch.randn(tokens, inputs), torch.randn(outputs, inputs)
    return [lambda: F.linear(x, weight)]


def unet(side):
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(cross_attention_dim=768).eval()
    sample, context = torch.randn(2, 4, side, side), torch.randn(2, 77, 768)
    return [lambda: network(sample, 500, context)]


# Criterion's name, the bench, and PyTorch's ways to the same: the fastest counts.
CASES = [
    ("attention_8x4096x40/plain_4096_keys", "attention", lambda: attention(4096)),
    ("attention_8x4096x40/plain_12288_keys", "attention", lambda: attention(12288)),
    ("conv3x3_1x320x64x64/fabric", "kernels", lambda: convolution(320, 64)),
    ("conv3x3_1x640x32x32/fabric", "kernels", lambda: convolution(640, 32)),
    ("conv3x3_1x1280x16x16/fabric", "kernels", lambda: convolution(1280, 16)),
    ("group_norm_silu_320x64x64/fabric", "kernels", lambda: unary((1, 320, 64, 64), group_norm)),
    ("layer_norm_4096x320/fabric", "kernels", lambda: unary((4096, 320), lambda x: F.layer_norm(x, (320,)))),
    ("gelu_4096x1280/fabric", "kernels", lambda: unary((4096, 1280), F.gelu)),
    ("geglu_4096x2560/fabric", "kernels", lambda: unary((4096, 2560), geglu)),
    ("softmax_4096x1280/fabric", "kernels", lambda: unary((4096, 1280), lambda x: x.softmax(-1))),
    ("linear_4096x320x2560/fabric", "kernels", lambda: linear(4096, 320, 2560)),
    ("unet_step_sd15_256_adapter/off", "networks", lambda: unet(32)),
    ("unet_step_sd15_512/plain", "networks", lambda: unet(64)),
]


def ours(name, bench):
    """Criterion's median, in seconds."""
    pattern = f"^{re.escape(name)}$"
    command = ["cargo", "bench", "--quiet", "--bench", bench, "--", pattern, "--warm-up-time", "1"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    estimates = json.loads((target / "criterion" / name / "new" / "estimates.json").read_text())
    return estimates["median"]["point_estimate"] / 1e9


@torch.inference_mode()
def theirs(f):
    """The median of about two seconds of calls, of two at least."""
    f()
    times = []
    while len(times) < 2 or sum(times) < 2:
        began = time.perf_counter()
        f()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main(words):
    torch.set_num_threads(int(os.environ.get("RAYON_NUM_THREADS", os.cpu_count())))
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads; milliseconds, {ROUNDS} rounds")
    print("| case | here | PyTorch | times |\n|---|---|---|---|")
    for name, bench, ways in CASES:
        if words and not any(word in name for word in words):
            continue
        ways = ways()
        pairs = [(ours(name, bench), min(theirs(f) for f in ways)) for _ in range(ROUNDS)]
        here, there = (statistics.median(times) for times in zip(*pairs))
        ratios = sorted(a / b for a, b in pairs)
        print(
            f"| {name} | {here * 1e3:.1f} | {there * 1e3:.1f} | {here / there:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
