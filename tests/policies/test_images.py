"""bc and bet on an image: LeRobot's encoder in the place of the keypoints, everything else as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from il_bench.policies.bet import ILBeTPolicy, whole_dataset
from tests.small_policies import IMAGE, SMALL, features, small_policy, training_batch

STATE, SIDE = (2,), (3, 48, 48)


def on_images(policy_type: str, **fields: Any) -> Any:
    fields = {"crop_shape": (40, 40), "spatial_softmax_num_keypoints": 4, **fields}
    return small_policy(policy_type, input_features=features(state=STATE, image=SIDE), **fields)


@pytest.mark.parametrize("policy_type", ["il_bc", "il_bet"])
def test_the_image_is_learned_from_and_decides(policy_type: str) -> None:
    extra = {} if policy_type == "il_bc" else {"softmax_temperature": 0.0}
    policy = on_images(policy_type, **extra)
    loss, _ = policy.forward(training_batch(policy.config, n=8))
    loss.backward()
    weights = dict(policy.named_parameters())["block_encoder.rgb_encoder.backbone.0.weight"]
    assert weights.grad is not None and weights.grad.abs().sum() > 0
    with torch.no_grad():
        for parameter in policy.parameters():  # away from what is drawn, where an image says next to nothing
            parameter.mul_(2)
    state, images = torch.zeros(2, 2), torch.stack([torch.zeros(3, 48, 48), torch.rand(3, 48, 48)])
    action = policy.select_action({"observation.state": state, IMAGE: images})
    assert action.shape == (2, 2) and not torch.equal(action[0], action[1])


@pytest.mark.parametrize("policy_type", ["il_bc", "il_bet"])
def test_keypoint_policies_have_the_weights_they_had(policy_type: str) -> None:
    assert not [name for name in small_policy(policy_type).state_dict() if "block_encoder" in name]


@pytest.mark.parametrize(
    ("inputs", "fields", "message"),
    [
        ({"state": STATE, "image": SIDE, "side": SIDE}, {}, "takes two input features, .*image'; it got"),
        ({"image": SIDE}, {}, "observation.state"),
        ({"state": STATE, "image": SIDE}, {"crop_shape": (60, 40)}, r"crop_shape is \(60, 40\)"),
    ],
)
def test_what_it_cannot_take_is_named(inputs: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_policy("il_bc", input_features=features(**inputs), **{"crop_shape": (40, 40), **fields})


class Meta:
    """What ``whole_dataset`` reads of a LeRobotDatasetMetadata."""

    def __init__(self, root: Path, actions: np.ndarray, lengths: list[int]) -> None:
        self.root = root
        (root / "data" / "chunk-000").mkdir(parents=True)
        table = pd.DataFrame(
            {
                "action": list(actions.astype(np.float32)),
                "observation.state": list((actions + 1).astype(np.float32)),
                "episode_index": np.repeat(np.arange(len(lengths)), lengths),
                "index": np.arange(len(actions)),
            }
        )
        table.to_parquet(root / "data" / "chunk-000" / "file-000.parquet")
        low, high = torch.zeros(2), torch.full((2,), 10.0)
        self.stats = {key: {"min": low, "max": high} for key in ("action", "observation.state")}


def test_bet_fits_its_centres_on_the_whole_data_set_it_is_built_for(tmp_path: Path) -> None:
    actions = np.arange(14.0).reshape(7, 2)
    meta = Meta(tmp_path, actions, [4, 3])
    config = small_policy("il_bet", chunk_size=3, n_action_steps=3, relative_actions=False).config
    seen = whole_dataset(meta, config)
    chunks = (seen["action"] + 1) * 5  # back to px: [-1, 1] was [0, 10]
    assert torch.allclose(chunks[2, :, 0], torch.tensor([4.0, 6.0, 6.0]))  # the last of its episode, repeated
    assert torch.allclose(chunks[4, :, 0], torch.tensor([8.0, 10.0, 12.0]))
    assert seen["observation.state"].shape == (7, 1, 2)
    policy = ILBeTPolicy(config, dataset_meta=meta)
    assert SMALL["il_bet"]["codebook_size"] == 4
    one = {key: value[:1].expand(4, *value.shape[1:]) for key, value in seen.items()}  # too few to fit on
    one["observation.state"] = one["observation.state"].expand(-1, config.n_obs_steps, -1)
    one["observation.environment_state"] = torch.zeros(4, config.n_obs_steps, 16)
    policy.forward({**one, "action_is_pad": torch.zeros(4, 3, dtype=torch.bool)})
    assert bool(policy.tokenizer.fitted)
    centers = policy.tokenizer.centers
    assert torch.cdist(seen["action"].flatten(1), centers).min(dim=1).values.max() < 0.8
