"""The models, one file per paper. Importing this package registers them all; see ``registry``."""

from audiosr_cli.contract import ModelSpec
from audiosr_cli.models.base import Config, Model
from audiosr_cli.models.registry import architecture_of, architectures, build, make_config, register

# A model may import the names above from here, so they come first.
# isort: split
from audiosr_cli.models import (  # noqa: F401 - each registers its model
    audio_classifier,
    audio_unet,
    audiosr,
    band_masks,
    band_mixer,
    conv_tasnet,
    dual_path,
    sfsrnet,
    speaker_encoder,
    spectral_bwe,
    spectral_unet,
    wave_u_net,
)

__all__ = ["Config", "Model", "ModelSpec", "architecture_of", "architectures", "build", "make_config", "register"]
