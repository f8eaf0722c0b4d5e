"""Measure AudioSR-basic with random weights: `python tools/audiosr_basic.py`.

Reports the parameters of each part and the CPU time of one pass over 5.12 s.

The published sizes (arXiv 2309.07314): autoencoder 223.5 M, latent network 258.2 M, vocoder 190.3 M.
"""

import json
import resource
import time

import torch
from torch import nn

from audiosr_cli.dsp.spectra import mel_filters
from audiosr_cli.models.audiosr import log_mels
from audiosr_cli.models.diffusion import ddim
from audiosr_cli.models.hifi_gan import HiFiGAN, HiFiGANConfig
from audiosr_cli.models.latent_unet import LatentUNet, LatentUNetConfig
from audiosr_cli.models.mel_vae import MelVAE, MelVAEConfig

SECONDS = 5.12


def millions(network: nn.Module) -> float:
    """Return the number of parameters in millions."""
    return round(sum(weight.numel() for weight in network.parameters()) / 1e6, 1)


@torch.inference_mode()
def main() -> None:
    """Print one JSON object."""
    torch.manual_seed(0)
    vae, unet, vocoder = MelVAE(MelVAEConfig()), LatentUNet(LatentUNetConfig()), HiFiGAN(HiFiGANConfig())
    sizes = {"autoencoder": millions(vae), "latent network": millions(unet), "vocoder": millions(vocoder)}
    seconds, shapes = {}, {}

    def timed(name: str, made: torch.Tensor, begun: float) -> torch.Tensor:
        seconds[name], shapes[name] = round(time.process_time() - begun, 1), list(made.shape)
        return made

    waves = 0.1 * torch.randn(1, round(SECONDS * 48000))
    begun = time.process_time()
    mels = timed("mels", log_mels(waves, mel_filters(2048, 256, 48000, 20.0)), begun)
    begun = time.process_time()
    condition = timed("encode", vae.encode(mels.unsqueeze(1)).mean, begun)
    begun = time.process_time()
    latent = ddim(lambda x, step: unet(x, condition, step), lambda _: torch.randn_like(condition), 1)
    timed("one step", latent, begun)
    begun = time.process_time()
    made = timed("decode", vae.decode(latent)[:, 0], begun)
    begun = time.process_time()
    timed("voice", vocoder(made.transpose(1, 2)), begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"million parameters": sizes, "CPU-s": seconds, "shapes": shapes, "peak MB": round(peak)}))


if __name__ == "__main__":
    main()
