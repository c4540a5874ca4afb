"""A step of training the small world's U-Net in PyTorch, for comparison with the bench `training`.

    python benches/training.py MODEL_FOLDER

needs torch, diffusers and transformers. The networks are those of the folder's configuration files, with random
weights; the step is the trainer's: captions through the frozen text encoder, velocity loss, AdamW, clipped gradient,
moving average.
"""

import copy
import json
import sys
import time

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

IMAGES = 64


def config(folder, part):
    with open(f"{folder}/{part}/config.json", encoding="utf-8") as file:
        return json.load(file)


def main(folder):
    unet = UNet2DConditionModel.from_config(config(folder, "unet"))
    text_config = CLIPTextConfig(**config(folder, "text_encoder"))
    text = CLIPTextModel(text_config).eval().requires_grad_(False)
    average = copy.deepcopy(unet).requires_grad_(False)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    channels, side = unet.config.in_channels, unet.config.sample_size
    print(f"{sum(p.numel() for p in unet.parameters()) / 1e6:.2f} M parameters, {torch.get_num_threads()} threads")
    times = []
    for step in range(16):
        began = time.perf_counter()
        ids = torch.randint(0, text_config.vocab_size, (IMAGES, text_config.max_position_embeddings))
        clean, noise = torch.randn(2, IMAGES, channels, side, side)
        level = torch.rand(IMAGES, 1, 1, 1)
        alpha, sigma = (1 - level**2).sqrt(), level
        timesteps = (level.flatten() * 999).long()
        with torch.no_grad():
            context = text(ids).last_hidden_state
        predicted = unet(alpha * clean + sigma * noise, timesteps, context).sample
        loss = ((predicted - (alpha * noise - sigma * clean)) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), unet.parameters()):
                mean.lerp_(weight, 0.001)
        if step >= 3:
            times.append(time.perf_counter() - began)
    times.sort()
    median = times[len(times) // 2]
    print(f"step: {median * 1e3:.0f} ms (best {times[0] * 1e3:.0f}), {IMAGES / median:.1f} images a second")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
