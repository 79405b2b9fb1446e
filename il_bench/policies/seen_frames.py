"""Images that a policy has encoded already are not encoded again, while it is rolled out.

LeRobot's VQ-BeT and Diffusion encode every frame of the history at every prediction, and every policy encodes
the last frame of worlds that are done until the whole block is. Here an image encoder is run on what it has
not just seen. Its layers treat every image of a batch alike, so what they say of an image does not depend on
the others. In float32 on a CPU that was so to the bit, except that a batch of one takes other kernels; so
there is none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

#: What LeRobot calls the convolutions of an image encoder, in every policy.
_NAME = "backbone"
_EACH_ALONE = (nn.Conv2d, nn.BatchNorm2d, FrozenBatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.ReLU, nn.Identity)


@contextmanager
def encoded_once(policy: nn.Module) -> Iterator[None]:
    """In this context, the policy's image encoders remember what they said of the images of their last call.

    Only on the CPU: elsewhere it costs more to compare images than to encode them.
    """
    patched: list[tuple[nn.Module, dict[str, Any]]] = []
    for name, module in policy.named_modules():
        if name.rpartition(".")[2] == _NAME and _is_each_alone(module):
            own = {key: value for key, value in vars(module).items() if key == "forward"}
            patched.append((module, own))
            module.forward = _Remembering(module.forward)
    try:
        yield
    finally:
        for module, own in patched:
            del module.forward
            vars(module).update(own)


def _is_each_alone(encoder: nn.Module) -> bool:
    """Whether nothing in an encoder mixes the images of a batch, as batch norm does while it is trained."""
    layers = [each for each in encoder.modules() if not any(each.children())]
    return all(isinstance(each, _EACH_ALONE) for each in layers) and not any(
        isinstance(each, nn.BatchNorm2d) and (each.training or each.running_mean is None) for each in layers
    )


class _Remembering:
    """An encoder's `forward`, images (B, C, H, W) to maps (B, ..) or a dictionary of them."""

    def __init__(self, encode: Callable[[Tensor], Tensor | dict[str, Tensor]]) -> None:
        self._encode = encode
        self._known: dict[bytes, dict[str, Tensor]] = {}  # by image: its row of every map

    def __call__(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        if images.device.type != "cpu" or len(images) == 1:
            return self._encode(images)
        keys = [image.tobytes() for image in images.numpy()]
        first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self._known}
        rows = sorted(first.values())
        if rows:
            found = self._encode(images[torch.tensor(rows * 2 if len(rows) == 1 else rows)])
            maps = found if isinstance(found, dict) else {"": found}
            for place, row in enumerate(rows):
                self._known[keys[row]] = {name: each[place] for name, each in maps.items()}
        self._known = {key: self._known[key] for key in keys}
        said = [self._known[key] for key in keys]
        joined = {name: torch.stack([each[name] for each in said]) for name in said[0]}
        return joined.get("", joined)
