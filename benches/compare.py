"""Cases of the benches beside PyTorch's counterparts, by turns in one run.

    python benches/compare.py [WORD ...]

needs torch (and for `unet_step` diffusers) and prints how many times PyTorch's time each case takes, and how many times
the memory that its process took at its highest (the machine's, not a GPU's); words choose cases by their names. Both use as
many threads as the machine has, or as RAYON_NUM_THREADS says. FABRIC_DEVICE=cuda compares on a GPU, FABRIC_DTYPE=bf16 networks in another number type, and CARGO_BENCH_FEATURES names cargo features for the build.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

THEIRS = sys.argv[1:2] == ["--theirs"]
if find_spec("torch") is None:
    sys.exit("benches/compare.py: found no torch, wanted it to compare with; `pip install torch`")
# Not in the process that starts the others: a child's peak of memory begins with its parent's size.
if THEIRS:
    import torch
    import torch.nn.functional as F

ROUNDS = 3
ON_GPU = os.environ.get("FABRIC_DEVICE", "").startswith("cuda")
DTYPE = os.environ.get("FABRIC_DTYPE", "f32")
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


def compiled(side):
    """The same step, compiled."""
    return [torch.compile(step) for step in unet(side)]


def published_fabric(references, side):
    """FABRIC as its authors' code does it: all references through the whole network, what enters each self-attention kept; then both
    halves of the guided batch with scores, softmax, weights and a new normalisation, one half after the other."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention import BasicTransformerBlock

    network = UNet2DConditionModel(cross_attention_dim=768).eval()
    blocks = [module for module in network.modules() if isinstance(module, BasicTransformerBlock)]
    kept = {}

    class Keep:
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, attn, hidden_states, **given):
            kept[attn] = hidden_states
            return self.inner(attn, hidden_states, **given)

    class Weigh:
        def __call__(self, attn, hidden_states, **given):
            weight, done = 0.8, []
            for half, lent in zip(hidden_states.chunk(2), kept[attn].chunk(2)):
                joint = torch.cat([half, lent.reshape(1, -1, lent.shape[-1])], dim=1)
                query, key, value = (
                    attn.head_to_batch_dim(x) for x in (attn.to_q(half), attn.to_k(joint), attn.to_v(joint))
                )
                weights = torch.ones(joint.shape[1])
                weights[half.shape[1] :] = weight
                shares = attn.get_attention_scores(query, key) * weights
                shares = shares / shares.sum(dim=-1, keepdim=True)
                done.append(attn.to_out[0](attn.batch_to_head_dim(shares @ value)))
            return torch.cat(done)

    plain = [block.attn1.processor for block in blocks]
    sample, context = torch.randn(2, 4, side, side), torch.randn(2, 77, 768)
    lent, nothing = torch.randn(references, 4, side, side), torch.randn(1, 77, 768).expand(references, -1, -1)

    def step():
        for block, processor in zip(blocks, plain):
            block.attn1.processor = Keep(processor)
        network(lent, 500, nothing)
        for block in blocks:
            block.attn1.processor = Weigh()
        return network(sample, 500, context)

    return [step]


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
    ("unet_step_sd15_512/interleaved_4", "networks", lambda: published_fabric(4, 64)),
]


def process(command):
    """Runs it, and gives what it printed and the most memory that it or a process it waited for took, in bytes."""
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    printed = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"benches/compare.py: {' '.join(command)}: found exit status {status}, wanted 0; run it alone to see why")
    return printed, used.ru_maxrss * 1024


def ours(name, bench):
    """Criterion's median, in seconds, and the peak of memory."""
    pattern = f"^{re.escape(name)}$"
    features = os.environ.get("CARGO_BENCH_FEATURES", "flex train")
    command = ["cargo", "bench", "--quiet", "--features", features, "--bench", bench]
    # The compiler's memory is not the bench's.
    process([*command, "--no-run"])
    _, peak = process([*command, "--", pattern, "--warm-up-time", "1"])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    estimates = json.loads((target / "criterion" / name / "new" / "estimates.json").read_text())
    return estimates["median"]["point_estimate"] / 1e9, peak


def theirs(index):
    """The median of PyTorch's fastest way, in seconds, and the peak of memory of a process of its own."""
    printed, peak = process([sys.executable, __file__, "--theirs", str(index)])
    return float(printed), peak


def median(f):
    """The median of about two seconds of calls, of two at least."""
    f()
    times = []
    while len(times) < 2 or sum(times) < 2:
        began = time.perf_counter()
        f()
        if ON_GPU:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main(words):
    if ON_GPU:
        CASES.append(("unet_step_sd15_512/plain", "networks", lambda: compiled(64)))
    threads = int(os.environ.get("RAYON_NUM_THREADS", os.cpu_count()))
    if THEIRS:
        if ON_GPU:
            torch.set_default_device(os.environ["FABRIC_DEVICE"])
        torch.set_default_dtype({"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[DTYPE])
        torch.set_num_threads(threads)
        with torch.inference_mode():
            print(min(median(f) for f in CASES[int(words[1])][2]()))
        return
    print(f"PyTorch {version('torch')}, {threads} threads; milliseconds and GB, {ROUNDS} rounds")
    print("| case | here | PyTorch | times | memory here | PyTorch | times |\n|---|---|---|---|---|---|---|")
    for index, (name, bench, _) in enumerate(CASES):
        if words and not any(word in name for word in words):
            continue
        pairs = [(ours(name, bench), theirs(index)) for _ in range(ROUNDS)]
        columns = [name]
        for unit, form, quantity in [(1e-3, "{:.1f}", 0), (1e9, "{:.2f}", 1)]:
            here, there = (statistics.median(side[quantity] for side in sides) for sides in zip(*pairs))
            ratios = sorted(a[quantity] / b[quantity] for a, b in pairs)
            columns += [form.format(here / unit), form.format(there / unit)]
            columns.append(f"{here / there:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
