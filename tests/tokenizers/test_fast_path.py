"""Residual VQ's fast path gives LeRobot's answer on the same weights, whatever happens to the weights."""

import copy
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from fitted import CHUNK, demonstrations, fitted, own_copy, plain_residual_vq, vqvae_config
from hypothesis import given
from hypothesis import strategies as st
from oracles import EPS, check_same_tokens, near_ties
from strategies import chunks_of, examples, problems, smooth, tokens_of

from il_bench.policies.vqbet import ResumableVqVae
from il_bench.tokenizers import ResidualVQTokenizer, residual_tables

F32 = EPS[torch.float32]


def check_follows(tokenizer: Any, n: int = 150) -> tuple[Any, Any]:
    """Tokens and chunks are LeRobot's on the weights as they are now; returns both."""
    chunks = demonstrations(n, seed=11)
    exempt = near_ties("residual_vq", tokenizer, chunks, F32)
    assert exempt.mean() <= 0.05
    tokens = tokenizer.encode(chunks)
    check_same_tokens(tokens, tokenizer.vqvae.eval().get_code(chunks)[1], exempt)
    decoded, by_lerobot = tokenizer.decode(tokens), tokenizer.reference_decode(tokens)
    size = float(by_lerobot.abs().max())
    assert (decoded - by_lerobot).abs().max() <= 500 * F32 * max(size, 1.0)
    return tokens, decoded


def random_vq(seed: int, n_codes: int = 16, scale: float = 1.0) -> ResidualVQTokenizer:
    """An adapter around random weights, its codes in the midst of the latents."""
    torch.manual_seed(seed)
    vqvae = ResumableVqVae(vqvae_config(CHUNK, n_codes, 8, 32))
    for layer in list(vqvae.encoder)[::2]:  # torch's own start shrinks what passes to a few percent
        layer.weight.data.mul_(6**0.5)
    latents = vqvae.encoder(demonstrations(n_codes, seed=seed).flatten(1)).detach()
    vqvae.vq_layer.layers[0].codebook = scale * latents
    vqvae.vq_layer.layers[1].codebook = 0.2 * scale * (latents - latents.roll(1, dims=0))
    vqvae.discretized.fill_(True)
    vqvae.vq_layer.freeze_codebook.fill_(True)
    return ResidualVQTokenizer(vqvae).eval()


@pytest.mark.parametrize("n_codes", [1, 2, 3, 16, 65])
def test_the_fast_path_gives_lerobots_tokens_and_chunks(n_codes: int) -> None:
    """65 codes make more combinations than are decoded beforehand."""
    tokens, _ = check_follows(random_vq(1, n_codes))
    assert n_codes < 4 or len(torch.unique(tokens, dim=0)) > 10


@examples(20)
@given(chunks=chunks_of(CHUNK), tokens=tokens_of(16, 2), seed=st.integers(0, 3))
def test_the_fast_path_is_lerobots_on_any_chunk_and_token(chunks: Any, tokens: Any, seed: int) -> None:
    tokenizer = random_vq(seed)
    exempt = near_ties("residual_vq", tokenizer, chunks, F32)
    check_same_tokens(tokenizer.encode(chunks), tokenizer.reference_encode(chunks), exempt)
    torch.testing.assert_close(
        tokenizer.decode(tokens), tokenizer.reference_decode(tokens), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("n", [1, 2, 64, 1024, 4096])
def test_the_fast_path_is_lerobots_at_every_batch_size(n: int) -> None:
    tokenizer: Any = fitted("residual_vq")
    chunks = demonstrations(n, seed=12)
    exempt = near_ties("residual_vq", tokenizer, chunks, F32)
    check_same_tokens(tokenizer.encode(chunks), tokenizer.reference_encode(chunks), exempt)


@examples(60)
@given(problem=problems(smooth, dim=3), shift=st.sampled_from([0.0, 30.0, 1000.0]), repeat=st.integers(1, 40))
def test_near_ties_are_decided_in_float64(problem: Any, shift: float, repeat: int) -> None:
    """Codes far from the origin and duplicates: the nearest by float64 and of equals the lowest, every time.

    Here nothing is exempt: that is where arithmetic in float32 has no idea and the fallback decides.
    """
    points, codebook = (part + np.float32(shift) for part in problem)
    points, twice = np.resize(points, (repeat, 3)), np.concatenate([codebook, codebook])
    tokenizer = plain_residual_vq(torch.from_numpy(np.stack([twice, np.zeros_like(twice)])))
    tokens = tokenizer.encode(torch.from_numpy(points)[:, None])
    chosen = tokens[:, 0].numpy()
    error = oracles.direct_error(oracles.squared_distances(points, twice), 3, 1e-14)
    oracles.check_nearest(points, twice, chosen, error)
    assert (chosen < len(codebook)).all()
    assert (tokens[:, 1] == 0).all()


def test_a_tie_in_the_second_stage_is_decided_too() -> None:
    """The residual 1000.5 - 1000 is half way between two codes that float32 cannot tell apart beside 1000."""
    codebooks = torch.tensor([[[1000.0, 0.0], [-1000.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    codebooks[1, 0, 0], codebooks[1, 1, 0] = 0.5 + 2e-5, 0.5 - 1e-5
    chunks = torch.tensor([[[1000.5, 0.0]], [[-999.5, 0.0]]])
    assert plain_residual_vq(codebooks).encode(chunks).tolist() == [[0, 1], [1, 1]]
    codebooks[1, 1, 0] = 0.5 + 3e-5
    assert plain_residual_vq(codebooks).encode(chunks).tolist() == [[0, 0], [1, 0]]


# What was worked out beforehand follows the weights


def first_phase(vqvae: Any) -> None:
    vqvae.discretized.fill_(False)
    vqvae.vq_layer.freeze_codebook.fill_(False)
    vqvae.train()
    optimizer = torch.optim.AdamW(vqvae.parameters(), lr=0.05)
    for step in range(3):
        optimizer.zero_grad()
        vqvae.vqvae_forward(demonstrations(64, seed=step))[0].backward()
        optimizer.step()
    vqvae.discretized.fill_(True)


def moving_averages_alone(vqvae: Any) -> None:
    vqvae.vq_layer.freeze_codebook.fill_(False)
    vqvae.vq_layer.train()
    for step in range(5):
        vqvae.get_code(demonstrations(64, seed=step))


def second_codebook(vqvae: Any) -> torch.Tensor:
    return vqvae.vq_layer.layers[1]._codebook.embed.data  # type: ignore[no-any-return]


#: The ways in which weights change under a tokenizer that has been used, given its module and another one.
WAYS: dict[str, Any] = {
    "load_state_dict": lambda vqvae, other: vqvae.load_state_dict(other.state_dict()),
    "load_state_dict, assigned": lambda vqvae, other: vqvae.load_state_dict(
        copy.deepcopy(other.state_dict()), assign=True
    ),
    "codebook replaced": lambda vqvae, other: setattr(
        vqvae.vq_layer.layers[0], "codebook", other.vq_layer.codebooks[0]
    ),
    # As LeRobot's own update writes: that moves no version counter.
    "second codebook through .data": lambda vqvae, _: second_codebook(vqvae).copy_(
        second_codebook(vqvae).roll(1, dims=1)
    ),
    "encoder bias through .data": lambda vqvae, _: vqvae.encoder[-1].bias.data.add_(
        torch.linspace(-1.0, 1.0, 8)
    ),
    "decoder bias in place": torch.no_grad()(lambda vqvae, _: vqvae.decoder[-1].bias.add_(1.0)),
    "decoder weight through .data": lambda vqvae, _: vqvae.decoder[2].weight.data.neg_(),
    "new parameter": lambda vqvae, other: setattr(
        vqvae.encoder[0], "weight", torch.nn.Parameter(other.encoder[0].weight.detach().clone())
    ),
    "not contiguous": lambda vqvae, other: setattr(
        vqvae.encoder[2].weight, "data", other.encoder[2].weight.data.t().contiguous().t()
    ),
    "first-phase step": lambda vqvae, _: first_phase(vqvae),
    "moving averages alone": lambda vqvae, _: moving_averages_alone(vqvae),
}


def changed_by(how: str, tokenizer: Any) -> None:
    WAYS[how](tokenizer.vqvae, random_vq(7).vqvae)


@pytest.mark.parametrize("how", WAYS)
def test_what_is_worked_out_beforehand_follows_the_weights(how: str) -> None:
    tokenizer = random_vq(3)
    tokens, decoded = check_follows(tokenizer)
    every = torch.cartesian_prod(torch.arange(16), torch.arange(16))
    all_chunks = tokenizer.decode(every)
    changed_by(how, tokenizer)
    now, _ = check_follows(tokenizer)
    after = tokenizer.decode(every)
    torch.testing.assert_close(after, tokenizer.reference_decode(every), rtol=1e-3, atol=1e-3)
    assert not torch.equal(now, tokens) or not torch.allclose(after, all_chunks)
    assert decoded.shape[1:] == CHUNK


@examples(40)
@given(data=st.data())
def test_a_change_of_any_single_weight_is_noticed(data: st.DataObject) -> None:
    """Through ``.data``, as LeRobot writes its codebooks; to a huge value, so that it shows somewhere."""
    tokenizer = random_vq(5, n_codes=3)
    chunks, every = demonstrations(20), torch.cartesian_prod(torch.arange(3), torch.arange(3))
    tokenizer.encode(chunks)
    tokenizer.decode(every)
    tensors = [
        *tokenizer.vqvae.encoder.parameters(),
        *tokenizer.vqvae.decoder.parameters(),
        *[stage._codebook.embed for stage in tokenizer.vqvae.vq_layer.layers],
    ]
    tensor = data.draw(st.sampled_from(tensors)).data.view(-1)
    tensor[data.draw(st.integers(0, len(tensor) - 1))] += data.draw(st.sampled_from([100.0, -100.0]))
    new = ResidualVQTokenizer(tokenizer.vqvae)
    assert torch.equal(tokenizer.encode(chunks), new.encode(chunks))
    assert torch.equal(tokenizer.decode(every), new.decode(every))


def test_a_copy_follows_its_own_weights() -> None:
    tokenizer = random_vq(3)
    tokens, _ = check_follows(tokenizer)
    twin = copy.deepcopy(tokenizer)
    twin.vqvae.load_state_dict(random_vq(8).vqvae.state_dict())
    check_follows(twin)
    assert torch.equal(check_follows(tokenizer)[0], tokens)


def test_what_is_worked_out_beforehand_is_neither_saved_nor_shared() -> None:
    tokenizer = own_copy("residual_vq")
    tokenizer.decode(tokenizer.encode(demonstrations(20)))
    assert set(tokenizer.state_dict()) == {f"vqvae.{key}" for key in tokenizer.vqvae.state_dict()}
    assert tokenizer.encode(demonstrations(20)) is not tokenizer.encode(demonstrations(20))
    zeros = torch.zeros(3, 2, dtype=torch.int64)
    tokenizer.decode(zeros).fill_(7.0)
    tokenizer.encode(demonstrations(20)).fill_(0)
    torch.testing.assert_close(tokenizer.decode(zeros), tokenizer.reference_decode(zeros))


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_it_can_be_used_first_in_one_mode_of_autograd_and_then_in_another(context: Any) -> None:
    tokenizer = own_copy("residual_vq")
    chunks = demonstrations(10)
    with context():
        tokens = tokenizer.encode(chunks)
        tokenizer.decode(tokens)
    assert torch.equal(tokenizer.encode(chunks), tokens)
    assert not tokenizer.decode(tokens).requires_grad


def test_the_adapter_shares_the_policys_weights() -> None:
    vqvae = own_copy("residual_vq").vqvae
    one, other = ResidualVQTokenizer(vqvae), ResidualVQTokenizer(vqvae)
    assert one.vqvae is vqvae
    one.encode(demonstrations(5))
    changed_by("encoder bias through .data", other)
    check_follows(one)


@pytest.mark.parametrize("has_memcmp", [True, False])
def test_weights_are_compared_with_and_without_the_c_library(
    monkeypatch: pytest.MonkeyPatch, has_memcmp: bool
) -> None:
    """And one that became shorter is not compared beyond its end."""
    if not has_memcmp:
        monkeypatch.setattr(residual_tables, "_memcmp", None)
    _same = residual_tables._same
    whole = torch.arange(8.0)
    assert _same(whole, whole.clone())
    assert not _same(whole[:4], whole)
    assert not _same(whole, whole[:4].clone())
    assert not _same(whole.reshape(2, 4), whole)
    assert not _same(whole + 1, whole)
    square = whole[:4].reshape(2, 2)
    assert _same(square.T, square.T.contiguous()) and not _same(square.T, square)
