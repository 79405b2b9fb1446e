"""The eye: torchvision's ResNet18 with batch norm, then LeRobot's spatial softmax, linear layer and ReLU.

Names and shapes are those of ``DiffusionRgbEncoder`` and ``VQBeTRgbEncoder`` without group norm and without a
crop, so the same weights fit ``diffusion``, ``vqbet`` and ``il_bc``; ACT takes the ResNet.
"""

from pathlib import Path
from typing import Any

import torch
import torchvision
from lerobot.policies.diffusion.modeling_diffusion import SpatialSoftmax
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from il_bench.errors import IlBenchError
from il_bench.files import reading
from il_bench.train.pixels.scenes import N_TARGETS

NUM_KEYPOINTS = 64  # spatial_softmax_num_keypoints: the feature's 128 numbers have room for the targets
FEATURE_DIM = 2 * NUM_KEYPOINTS
MAP_SHAPE = (512, 3, 3)  # of a 96 x 96 image, before the spatial softmax: what ACT sees
_SHIFT = 1.25  # added to every target in the feature, so that the ReLU passes it
#: nn.Sequential(*resnet18.children()[:-2]), and torchvision's own names, which ACT has.
_RESNET_NAMES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
#: Where a policy of a type has its image encoder.
ENCODERS = {
    "act": "model.backbone",
    "diffusion": "diffusion.rgb_encoder",
    "il_bc": "block_encoder.rgb_encoder",
    "vqbet": "vqbet.rgb_encoder",
}


class Eye(nn.Module):
    """``backbone``, ``pool`` and ``out`` are the image encoder; ``probe`` is for training only."""

    def __init__(self) -> None:
        super().__init__()
        resnet = torchvision.models.resnet18(weights=None)
        self.backbone = nn.Sequential(*list(resnet.children())[:-2])
        self.pool = SpatialSoftmax(MAP_SHAPE, num_kp=NUM_KEYPOINTS)
        self.out = nn.Linear(FEATURE_DIM, FEATURE_DIM)
        self.probe = nn.Linear(512 * 9, N_TARGETS)
        nn.init.constant_(self.out.bias, _SHIFT)

    def maps(self, images: Tensor, bfloat16: bool) -> Tensor:
        """Images (n, 3, 96, 96) in [0, 1] to maps (n, 512, 3, 3), float32."""
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            maps: Tensor = self.backbone(images)
        return maps.float()  # what follows in float32: coordinates in bfloat16 would be 1-2 px coarse

    def feature(self, maps: Tensor) -> Tensor:
        """What policies other than ACT see of maps (n, 512, 3, 3): (n, 128)."""
        return torch.relu(self.out(torch.flatten(self.pool(maps), 1)))

    def forward(self, images: Tensor, bfloat16: bool = False) -> tuple[Tensor, Tensor]:
        """What the feature says of the targets, and what the flat map says of them, (n, N_TARGETS) each."""
        maps = self.maps(images, bfloat16)
        return self.feature(maps)[:, :N_TARGETS] - _SHIFT, self.probe(maps.flatten(1))


def new_eye() -> Eye:
    """An eye with weights drawn by torch's generator, channels last in memory, where it computes faster."""
    return Eye().to(memory_format=torch.channels_last)  # type: ignore[no-any-return,call-overload]


def save_eye(eye: Eye, path: Path) -> None:
    """Write the encoder in 16 bits, without the probe; batch norm and buffers stay as they are."""
    state = {name: tensor for name, tensor in eye.state_dict().items() if not name.startswith("probe.")}
    norms = {name for name, module in eye.named_modules() if isinstance(module, nn.BatchNorm2d)}
    buffers = {name for name, _ in eye.named_buffers()}
    kept = {name for name in state if name in buffers or name.rpartition(".")[0] in norms}
    tensors = {n: t.contiguous() if n in kept else t.half().contiguous() for n, t in state.items()}
    save_file(tensors, path)


def load_eye(path: Path) -> Eye:
    """The eye of ``save_eye``, in float32 and in eval mode, without a use for its probe.

    Raises IlBenchError if the file is missing, damaged, or of another network.
    """
    way_out = "give a folder or file that `il-bench train eye` wrote"
    eye = new_eye().eval().requires_grad_(False)
    try:
        with reading(path, way_out):
            state: dict[str, Any] = load_file(path)
        missing, unknown = eye.load_state_dict(state, strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise IlBenchError(f"{path}: is not an eye ({error}); {way_out}.") from None
    if unknown or any(not name.startswith("probe.") for name in missing):
        names = ", ".join([*missing, *unknown][:3])
        raise IlBenchError(f"{path}: is not an eye (missing or unknown: {names}); {way_out}.")
    return eye


def encoder_state(eye: Eye, policy_type: str) -> dict[str, Tensor]:
    """The eye's tensors under the names that the image encoder of a policy type has for them."""
    if policy_type != "act":
        return {name: tensor for name, tensor in eye.state_dict().items() if not name.startswith("probe.")}
    state = {}
    for name, tensor in eye.backbone.state_dict().items():
        first, rest = name.split(".", 1)
        if not rest.endswith("num_batches_tracked"):  # FrozenBatchNorm2d counts nothing
            state[f"{_RESNET_NAMES[first]}.{rest}"] = tensor
    return state
