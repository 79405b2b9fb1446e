"""Policies on images: what they see is gym-pusht's camera to the pixel, whichever way they are rolled out."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from il_bench.errors import IlBenchError
from il_bench.latency.calls import actions_per_prediction, observations, policy_call
from il_bench.policies.checkpoint import load_policy
from il_bench.protocol import IMAGE_BLOCK_SIZE
from il_bench.pusht.batch import Camera, PushTBatch
from il_bench.rollout import run_block
from tests.small_policies import IMAGE, act_on_pixels, features, save, small_policy

FIRST_SEED = 100_000


class Pusher:
    """Pushes at random, and keeps the images it was shown."""

    def __init__(self, size: int = 96) -> None:
        self.camera = Camera(IMAGE, width=size, height=size)
        self.images: list[torch.Tensor] = []
        self.actions: list[torch.Tensor] = []

    def reset(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def select_action(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        assert set(batch) == {"observation.state", IMAGE}
        if len(self.images) == 25:
            raise InterruptedError("seen enough")
        self.images.append(batch[IMAGE])
        drawn = 150 + 200 * torch.rand(len(batch[IMAGE]), 2, generator=self._generator)
        self.actions.append(drawn)
        return drawn


def test_a_policy_with_a_camera_sees_gym_pushts_pixels() -> None:
    import gym_pusht  # noqa: F401

    pusher = Pusher()
    with pytest.raises(IlBenchError, match="seen enough"):
        run_block(pusher, np.array([FIRST_SEED]))
    assert len(pusher.images) == 25 and pusher.images[0].shape == (IMAGE_BLOCK_SIZE, 3, 96, 96)
    env = gymnasium.make("gym_pusht/PushT-v0", obs_type="pixels_agent_pos", disable_env_checker=True)
    for row in (0, 3):
        observation, _ = env.reset(seed=FIRST_SEED + row)
        for image, actions in zip(pusher.images, pusher.actions, strict=True):
            expected = torch.from_numpy(observation["pixels"]).permute(2, 0, 1).type(torch.float32) / 255
            assert torch.equal(image[row], expected)
            observation, *_ = env.step(actions[row].numpy())
    env.close()


def test_worlds_at_rest_are_not_drawn_again_but_seen_again() -> None:
    worlds, camera = PushTBatch(), Camera(IMAGE, width=64, height=48)
    worlds.reset([1, 2])
    first = worlds.observations(camera)[IMAGE]
    assert first.shape == (2, 3, 48, 64)
    worlds.step(np.full((2, 2), 50.0), np.array([True, False]))
    second = worlds.observations(camera)[IMAGE]
    assert np.array_equal(first[1], second[1]) and not np.array_equal(first[0], second[0])
    first[1] = 0
    assert worlds.observations(camera)[IMAGE][1].any()  # what was given away is the caller's


def test_an_act_on_pixels_is_loaded_and_rolled_out(tmp_path: Path) -> None:
    policy = load_policy(act_on_pixels(tmp_path / "act"))
    assert policy.track == "pixels" and policy.camera == Camera(IMAGE, 96, 96)
    worlds = PushTBatch()
    worlds.reset(range(3))
    seen = {key: torch.from_numpy(value) for key, value in worlds.observations(policy.camera).items()}
    action = policy.select_action(seen)
    assert action.shape == (3, 2) and 0 < action.mean() < 512
    assert not torch.equal(action[0], action[1])


def test_a_policy_on_pixels_can_be_timed(tmp_path: Path) -> None:
    """It is given the camera's images of as many episodes."""
    policy = load_policy(act_on_pixels(tmp_path / "act"))
    seen = observations(2, policy.camera)
    assert {key: tuple(value.shape) for key, value in seen.items()} == {
        "observation.state": (2, 2),
        IMAGE: (2, 3, 96, 96),
    }
    assert 0.0 <= float(seen[IMAGE].min()) < 0.5 < float(seen[IMAGE].max()) <= 1.0
    for what in ("new chunk", "predict_action_chunk", "control step"):
        timed = policy_call(policy, what, 2)
        timed.prepare()
        timed.call()


def test_lerobots_vqbet_executes_its_whole_chunk(tmp_path: Path) -> None:
    made = small_policy("vqbet", input_features=features(state=(2,), image=(3, 96, 96)))
    made.vqbet.action_head.vqvae_model.discretized.fill_(True)
    policy = load_policy(save(made, tmp_path / "vqbet"))
    assert actions_per_prediction(policy) == 5
    for what in ("predict_action_chunk", "queued action"):
        timed = policy_call(policy, what, 2)
        timed.prepare()
        timed.call()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"image": (4, 96, 96)}, "'observation.image' of shape (4, 96, 96)"),
        ({"images.top": (3, 96, 96), "images.side": (3, 96, 96)}, "PushT has one camera"),
        ({"image": (3, 96, 96), "environment_state": (16,)}, "PushT gives an image or keypoints"),
        ({"image": (3, 96, 96), "state": (7,)}, "'observation.state' of shape (7,)"),
    ],
)
def test_what_pusht_does_not_show_is_named(
    features: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(IlBenchError) as raised:
        load_policy(act_on_pixels(tmp_path / "act", **{"state": (2,)} | features))
    assert message in str(raised.value)
