"""What holds for every keypoint policy, and what each is for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from il_bench.policies.checkpoint import wrap
from tests.small_policies import OURS, features, observations, small_policy, train_a_little, training_batch

STATE = features(state=(2,))


def act(policy: Any, n_steps: int = 20) -> torch.Tensor:
    torch.manual_seed(7)
    policy.reset()
    return torch.stack([policy.select_action(observations(seed=step)) for step in range(n_steps)])


def test_a_reloaded_policy_gives_identical_actions(trained: Any, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path)
    again = type(trained).from_pretrained(tmp_path, strict=True)
    assert torch.equal(act(trained), act(again))


def test_while_rolled_out_a_policy_left_in_training_mode_still_acts_in_evaluation_mode(trained: Any) -> None:
    expected = act(trained.eval())
    loaded = wrap(trained, lambda batch: batch, lambda action: action, name="mine")
    with loaded.rolling_out():
        trained.eval()
        for module in trained.modules():
            module.training = module is not trained  # as after a forgotten train() of a part
        acted = act(trained)
    assert torch.equal(acted, expected) and not any(module.training for module in trained.modules())
    assert trained.train().eval() is trained and not trained.training


def test_a_policy_learns(trained: Any) -> None:
    batch = training_batch(trained.config, seed=99)
    optimizer = torch.optim.AdamW(trained.get_optim_params(), lr=3e-3)
    trained.train()
    losses = []
    for _ in range(40):
        loss, _ = trained.forward(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_optimizer_groups_hold_every_parameter_once(trained: Any) -> None:
    groups = trained.get_optim_params()
    listed = [p for g in groups for p in g["params"]] if isinstance(groups, list) else list(groups)
    assert {id(p) for p in listed} == {id(p) for p in trained.parameters()}
    assert len(listed) == len({id(p) for p in listed})


def test_a_chunk_is_executed_before_the_next_is_predicted(trained: Any) -> None:
    """With the same observation twice, actions 0 to n - 1 are one chunk, in order."""
    trained.reset()
    torch.manual_seed(3)
    executed = [trained.select_action(observations()) for _ in range(trained.config.n_action_steps)]
    trained.reset()
    torch.manual_seed(3)
    batch = {
        key: torch.stack([value] * trained.config.n_obs_steps, dim=1) for key, value in observations().items()
    }
    chunk = trained.predict_action_chunk(batch)
    assert torch.equal(torch.stack(executed, dim=1), chunk[:, : trained.config.n_action_steps])


def test_relative_actions_follow_the_agent(trained: Any) -> None:
    """Where only the reference of the action moves (the network's input does not), so does the action."""
    batch = {key: torch.stack([value] * 2, dim=1) for key, value in observations().items()}
    torch.manual_seed(1)
    relative = trained.predict(batch)
    trained.config.relative_actions = False
    torch.manual_seed(1)
    absolute = trained.predict(batch)
    state = batch["observation.state"][:, -1:].expand_as(relative)
    torch.testing.assert_close(relative - absolute, state, atol=1e-3, rtol=0)  # outputs go up to 500


@pytest.mark.parametrize("policy_type", ["il_bc", "il_bet"])
def test_padded_steps_do_not_count(policy_type: str) -> None:
    policy = small_policy(policy_type, dropout=0.0)
    batch = training_batch(policy.config)
    if policy_type == "il_bet":
        policy.fit_tokenizer(batch)
        # The centre of a chunk is chosen by the whole chunk, as LeRobot's windows repeat the last action;
        # what padding must not touch is the regression of the offset.
        policy.config.offset_loss_weight = 1.0
    policy.eval()
    batch["action_is_pad"][:, -3:] = True
    _, before = policy.forward(batch)
    key = "l1_loss" if policy_type == "il_bc" else "offset_loss"
    offset = torch.zeros_like(batch["action"])
    offset[:, -3:] = 1e-4  # small enough to keep every centre
    _, after = policy.forward({**batch, "action": batch["action"] + offset})
    assert after[key] == pytest.approx(before[key], abs=1e-9)


def test_bet_draws_the_likeliest_centre_at_temperature_zero() -> None:
    policy = small_policy("il_bet", softmax_temperature=0.0)
    train_a_little(policy)
    batch = {key: torch.stack([value] * 2, dim=1) for key, value in observations().items()}
    assert torch.equal(policy.predict(batch), policy.predict(batch))


def test_bet_reproduces_a_chunk_whose_centre_and_offset_it_gets_right() -> None:
    policy = small_policy("il_bet")
    batch = training_batch(policy.config)
    policy.fit_tokenizer(batch)
    indices, offsets = policy.tokenizer.encode_with_offset(policy.chunks(batch))
    rebuilt = policy.tokenizer.decode(indices, offsets) + batch["observation.state"][:, -1:]
    torch.testing.assert_close(rebuilt, batch["action"])


def vqvae(policy: Any) -> Any:
    return policy.vqbet.action_head.vqvae_model


def test_vqbet_freezes_its_codes_when_the_first_phase_ends() -> None:
    policy = small_policy("il_vqbet")
    train_a_little(policy, steps=2)
    assert policy.trains_residual_vq_only
    train_a_little(policy, steps=1)
    assert not policy.trains_residual_vq_only
    before = {key: value.clone() for key, value in vqvae(policy).state_dict().items()}
    train_a_little(policy, steps=5)  # calls policy.train() again
    after = vqvae(policy).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_vqbet_saved_in_its_first_phase_goes_on_where_it_stopped(tmp_path: Path) -> None:
    policy = small_policy("il_vqbet")
    train_a_little(policy, steps=2)
    policy.save_pretrained(tmp_path)
    again = type(policy).from_pretrained(tmp_path, strict=True)
    assert vqvae(again).optimized_steps == 2
    train_a_little(again, steps=1)
    assert not again.trains_residual_vq_only


def test_vqbet_target_chunks_are_worked_out_by_hand() -> None:
    """Two observations, chunk of 2: the windows at t-1 and t, each less the agent's position then."""
    policy = small_policy("il_vqbet", action_chunk_size=2, n_action_steps=1)
    action = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])  # steps t-1, t, t+1
    state = torch.tensor([[[0.5, 5.0], [1.5, 15.0]]])
    chunks = policy.vqbet.target_chunks({"action": action, "observation.state": state})
    expected = [[[0.5, 5.0], [1.5, 15.0]], [[0.5, 5.0], [1.5, 15.0]]]
    assert chunks.tolist() == [expected]


def test_vqbet_taught_the_true_primary_code_computes_what_lerobot_would_had_it_sampled_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = small_policy("il_vqbet", teach_true_primary=True, sequentially_select=True)
    train_a_little(policy)
    batch = training_batch(policy.config, n=9)
    encoded = vqvae(policy).encoder(policy.vqbet.target_chunks(batch).flatten(0, 1).flatten(1)).detach()
    for stage, embedded in enumerate([encoded[:4], 0.1 * (encoded[:4] - encoded[4:8])]):
        vqvae(policy).vq_layer.layers[stage]._codebook.embed.copy_(embedded[None])  # several codes in use
    model = policy.vqbet
    chunks = model.target_chunks(batch)
    true = vqvae(policy).get_code(chunks.flatten(0, 1))[1][:, :1]
    assert len(true.unique()) > 1
    secondary = torch.arange(len(true))[:, None] % 4
    draws = iter([secondary, true, secondary])  # mine, and then theirs
    monkeypatch.setattr(torch, "multinomial", lambda *_, **__: next(draws))
    mine, said = policy.forward(batch)
    theirs = model.action_head.loss_fn(model.action_head(model.features(batch)), chunks)
    torch.testing.assert_close(mine, theirs["loss"])
    assert said["equal_primary_code_rate"] == 1.0
    assert said["offset_loss"] == pytest.approx(theirs["offset_loss"])
    mine.backward()
    offsets = model.action_head.map_to_cbet_preds_offset[0].weight.grad.unflatten(0, (2, 4, -1))
    taught = offsets[0].abs().sum(dim=(1, 2)) > 0
    assert taught.nonzero().flatten().tolist() == true.unique().tolist()  # the codes that occur, and no other


@pytest.mark.parametrize(("revive_below", "revived"), [(0.0, False), (2.0, True)])
def test_vqbet_revives_codes_that_nothing_is_near_to(revive_below: float, revived: bool) -> None:
    policy = small_policy("il_vqbet", vqvae_revive_below=revive_below)
    far = 1e3
    for stage in vqvae(policy).vq_layer.layers:
        stage._codebook.embed[0, 1] = far
        stage._codebook.embed_avg[0, 1] = far
        stage._codebook.cluster_size[0, 1] = 0.0
    train_a_little(policy, steps=1)
    codebooks = [stage._codebook.embed[0] for stage in vqvae(policy).vq_layer.layers]
    assert all((codebook.abs().max() < far / 2) == revived for codebook in codebooks)
    assert all(
        (stage._codebook.cluster_size[0, 1] == revive_below) for stage in vqvae(policy).vq_layer.layers
    )


@pytest.mark.parametrize("n_future", [1, 3])
def test_vqbet_reads_the_query_of_each_observation(n_future: int) -> None:
    policy = small_policy("il_vqbet", n_action_pred_token=n_future)
    batch = training_batch(policy.config, n=3)
    assert policy.vqbet.features(batch).shape == (3, 2 + n_future - 1, 16)
    # The first query sees the first observation alone: a change of the second must not reach it.
    changed = {**batch, "observation.environment_state": batch["observation.environment_state"].clone()}
    changed["observation.environment_state"][:, 1] += 1
    policy.eval()
    difference = (policy.vqbet.features(batch) - policy.vqbet.features(changed)).abs().amax(dim=(0, 2))
    assert difference[0] == 0
    assert (difference[1:] > 0).all()


@pytest.mark.parametrize(
    ("policy_type", "fields", "said"),
    [
        *((kind, {"n_action_steps": 9}, "n_action_steps is 9") for kind in OURS),
        *((kind, {"input_features": STATE}, r"two input .*environment_state'; it got") for kind in OURS),
        ("il_vqbet", {"teach_true_primary": True}, "teach_true_primary is set; it needs sequentially_select"),
    ],
)
def test_what_does_not_fit_is_named(policy_type: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small_policy(policy_type, **fields)
