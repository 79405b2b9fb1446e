"""One training step of the quantizers, against the formulas: gradients, commitment, moving averages, revival.

LeRobot's and the library's ``VectorQuantize`` alone, and inside our tokenizers.
"""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
import vector_quantize_pytorch as library
from fitted import (
    MAKERS,
    N_CODES,
    demonstrations,
    fit,
    frozen_vqvae,
    own_copy,
    plain_fsq,
    plain_vqvae,
    vqvae_config,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lerobot.policies.vqbet import vqbet_utils as lerobot
from lerobot.policies.vqbet.modeling_vqbet import VqVae
from oracles import EPS
from strategies import examples, problems, smooth, two_stages

from il_bench.policies.vqbet import ResumableVqVae
from il_bench.tokenizers import ResidualVQTokenizer
from il_bench.tokenizers.nearest import nearest
from il_bench.tokenizers.training import train

F32 = EPS[torch.float32]
QUANTIZERS = {
    "lerobot": lambda dim, n, **options: lerobot.VectorQuantize(dim=dim, codebook_size=n, **options),
    "library": lambda dim, n, **options: library.VectorQuantize(
        dim=dim, codebook_size=n, rotation_trick=False, **options
    ),
}
both = pytest.mark.parametrize("maker", sorted(QUANTIZERS))


def quantizer(maker: str, codebook: Any, **options: Any) -> Any:
    """A quantizer in training mode with the given codes (C, D)."""
    made = QUANTIZERS[maker](codebook.shape[1], len(codebook), **options)
    made.codebook = torch.as_tensor(codebook)
    made._codebook.embed_avg.copy_(made._codebook.embed)
    return made.train()


def buffers(made: Any) -> tuple[Any, Any, Any]:
    book = made._codebook
    return tuple(oracles.array(each[0]) for each in (book.embed, book.cluster_size, book.embed_avg))


def assert_moved(made: Any, before: Any, points: Any, chosen: Any, rtol: float = 1e-4, **how: float) -> Any:
    """The buffers are one step by the formula after those ``before``, which is returned."""
    expected = oracles.ema_step(*before, points, np.asarray(chosen), **{"decay": 0.8, "eps": 1e-5, **how})
    for moved, by_formula in zip(buffers(made), expected, strict=True):
        np.testing.assert_allclose(moved, by_formula, rtol=rtol, atol=rtol / 10)
    return expected


def landed_on_the_batch(vqvae: Any, stage: int) -> list[bool]:
    """Which of a stage's codes lie on a latent that it saw, after one step of the first phase."""
    seen: list[torch.Tensor] = []
    layer = vqvae.vq_layer.layers[stage]
    hook = layer.register_forward_hook(lambda _, x, __: seen.append(x[0].detach()))
    vqvae.vqvae_forward(demonstrations(16))
    hook.remove()
    latents = seen[0].reshape(-1, 5)
    return [bool((latents == code).all(dim=1).any()) for code in layer._codebook.embed[0]]


# Gradients


@pytest.mark.parametrize("maker", ["ours", *QUANTIZERS])
@examples(25)
@given(problem=problems(smooth), data=st.data())
def test_the_gradient_goes_straight_through_one_stage(maker: str, problem: Any, data: st.DataObject) -> None:
    points, codebook = problem
    weight = torch.from_numpy(data.draw(arrays(np.float32, points.shape, elements=smooth)))
    x = torch.from_numpy(points).requires_grad_()
    ours = plain_vqvae(torch.from_numpy(codebook)).quantizer.train() if maker == "ours" else None
    made = ours or quantizer(maker, codebook)
    quantized, index, _ = made(x[None], freeze_codebook=True)
    off = (quantized[0] - torch.from_numpy(codebook)[index[0]]).abs()
    assert (off <= 2 * F32 * (x.abs() + 4)).all()
    (quantized[0] * weight).sum().backward()
    assert torch.equal(x.grad, weight)


@examples(25)
@given(problem=two_stages(smooth, dim=3), data=st.data())
def test_lerobots_gradient_over_two_stages_is_twice_the_identity(problem: Any, data: st.DataObject) -> None:
    """Each stage passes the gradient on to what it saw, x and x - q.detach(), and the sum adds both up.

    So the encoder gets twice the decoder's gradient, which halves the weight of the commitment loss beside
    it: 5 times it is in effect 2.5 times. SoundStream (Zeghidour et al. 2021) has the identity.
    """
    points, codebooks = (torch.from_numpy(part) for part in problem)
    weight = torch.from_numpy(data.draw(arrays(np.float32, points.shape, elements=smooth)))
    x = points.clone().requires_grad_()
    layer = frozen_vqvae(codebooks).vq_layer.train()
    (layer(x[None])[0][0] * weight).sum().backward()
    assert torch.equal(x.grad, 2 * weight)


def test_the_encoder_of_vqbet_learns_from_the_decoder_twice_over() -> None:
    """Decoder, encoder and codes of one dimension: d |x - d(q)| / d encoder bias = 2 sign, by hand."""
    vqvae = frozen_vqvae(torch.tensor([[[0.0], [4.0]], [[0.0], [-1.0]]]), VqVae).train()
    loss, (l1, commitment, tokens, _) = vqvae.vqvae_forward(torch.tensor([[[3.5]]]))
    # 3.5 -> 4, left -0.5 -> -1 or 0, equally near: 0, so it decodes to 4.
    assert tokens.tolist() == [[1, 0]]
    assert l1.item() == 0.5
    assert commitment.item() == 0.25 + 0.25
    assert loss.item() == 0.5 + 5 * 0.5
    loss.backward()
    # L1: sign(4 - 3.5) * 2. Commitment: 5 * (2 (3.5 - 4) + 2 (-0.5 - 0)) = -10.
    assert vqvae.encoder[-1].bias.grad.item() == 2 - 10


@pytest.mark.parametrize("levels", [(3, 3), (5, 4), (8, 6)])
@examples(20)
@given(data=st.data())
def test_fsqs_gradient_is_that_of_the_bound_alone(levels: tuple[int, ...], data: st.DataObject) -> None:
    """Rounding passes it on unchanged: L' (1 - tanh^2(z + shift)) / floor(L / 2)."""
    z = data.draw(arrays(np.float32, (4, 2), elements=smooth))
    weight = data.draw(arrays(np.float32, (4, 2), elements=smooth))
    x = torch.from_numpy(z).requires_grad_()
    made = plain_fsq(levels).quantizer.train()
    (made(x[None])[0][0] * torch.from_numpy(weight)).sum().backward()
    counts = np.array(levels, dtype=np.float64)
    half = (counts - 1) * 1.001 / 2
    shift = np.arctanh(np.where(counts % 2 == 0, 0.5, 0.0) / half)
    expected = weight * half * (1 - np.tanh(oracles.array(z) + shift) ** 2) / (counts // 2)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-3, atol=1e-4)


# Commitment


@both
@pytest.mark.parametrize("weight", [1.0, 0.25])
@examples(20)
@given(problem=problems(smooth))
def test_commitment_is_the_mean_squared_distance_to_the_code(maker: str, weight: float, problem: Any) -> None:
    points, codebook = problem
    x = torch.from_numpy(points).requires_grad_()
    made = quantizer(maker, codebook, commitment_weight=weight)
    _, index, loss = made(x[None], freeze_codebook=True)
    gaps = oracles.array(points) - oracles.array(codebook)[index[0].numpy()]
    assert loss.item() == pytest.approx(weight * np.square(gaps).mean(), rel=1e-5, abs=1e-9)
    loss.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), weight * 2 * gaps / gaps.size, rtol=1e-4, atol=1e-6)


@both
def test_in_eval_mode_nothing_is_lost(maker: str) -> None:
    made = quantizer(maker, torch.eye(2)).eval()
    assert made(torch.ones(1, 3, 2))[2].item() == 0.0


# Moving averages


@both
@pytest.mark.parametrize(("decay", "eps"), [(0.8, 1e-5), (0.99, 0.5)])
@examples(25)
@given(problem=problems(smooth), sizes=st.lists(st.integers(1, 9), min_size=6, max_size=6))
def test_the_codes_move_by_the_formula(
    maker: str, decay: float, eps: float, problem: Any, sizes: Any
) -> None:
    points, codebook = problem
    made = quantizer(maker, codebook, decay=decay, eps=eps)
    size = torch.tensor(sizes[: len(codebook)], dtype=torch.float32)
    made._codebook.cluster_size.copy_(size[None])
    made._codebook.embed_avg.copy_((size[:, None] * made.codebook)[None])
    before = buffers(made)
    for _ in range(2):
        _, index, _ = made(torch.from_numpy(points)[None])
        before = assert_moved(made, before, points, index[0], decay=decay, eps=eps)


@both
@pytest.mark.parametrize(
    ("eps", "codes"), [(0.0, [0.5, 9.8]), (0.5, [0.506494, 9.651515])], ids=["no smoothing", "smoothing"]
)
def test_moving_averages_by_hand(maker: str, eps: float, codes: list[float]) -> None:
    """Codes 0 and 10 that own 4 and 4 so far; 1, 2 and 9 come. Decay 1/2: (0 + 3) / (4 + 2) and 49 / 5.

    With eps = 1/2 the first has (3 + 1/2) / (5.5 + 2 / 2) of 5.5, 2.9615, and so 1.5 / 2.9615.
    """
    made = quantizer(maker, torch.tensor([[0.0], [10.0]]), decay=0.5, eps=eps)
    made._codebook.cluster_size.fill_(4.0)
    made._codebook.embed_avg.copy_(torch.tensor([[[0.0], [40.0]]]))
    made(torch.tensor([[[1.0], [2.0], [9.0]]]))
    assert made._codebook.cluster_size.tolist() == [[3.0, 2.5]]
    assert made._codebook.embed_avg.tolist() == [[[1.5], [24.5]]]
    assert made.codebook.flatten().tolist() == pytest.approx(codes, rel=1e-5)


def test_vqbets_first_phase_moves_both_stages_by_the_formula() -> None:
    """LeRobot's decay of 0.8 and eps of 1e-5; stage two is fed what stage one left before it moved."""
    torch.manual_seed(0)
    for kind in (VqVae, ResumableVqVae):
        vqvae = kind(vqvae_config((3, 2), 4, 5, 16)).train()
        chunks = demonstrations(32)
        latent = oracles.mlp(vqvae.encoder, chunks.flatten(1), F32).value
        before = [buffers(stage) for stage in vqvae.vq_layer.layers]
        _, (_, _, tokens, _) = vqvae.vqvae_forward(chunks)
        for stage, chosen in enumerate(tokens.T.numpy()):
            assert_moved(vqvae.vq_layer.layers[stage], before[stage], latent, chosen, rtol=2e-3)
            latent = latent - before[stage][0][chosen]


def test_our_vqvaes_codes_move_by_the_formula() -> None:
    tokenizer = own_copy("vqvae").train()
    points = demonstrations(64).flatten(1)[:, :4].contiguous()
    made = tokenizer.quantizer
    made._codebook.cluster_size.fill_(1e6)  # far from dying
    before = buffers(made)
    _, index, _ = made(points)
    assert_moved(made, before, points, index, decay=0.9)


def test_our_vqvae_learns_from_reconstruction_first_and_then_from_commitment_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What its fit minimises, by formula: L1, then L1 + 0.25 times the squared distance to the code."""
    tokenizer, batch = MAKERS["vqvae"](), demonstrations(64)
    losses: list[tuple[float, float]] = []

    def note(module: Any, loss_of: Any, chunks: torch.Tensor, steps: int) -> None:
        flat = batch.flatten(1)
        with torch.no_grad():
            latents = module.encoder(flat)
            if losses:
                codes = module.codebook[nearest(latents, module.codebook)]
                reconstruction = (module.decoder(codes) - flat).abs().mean()
                expected = reconstruction + 0.25 * (latents - codes).square().mean()
            else:
                expected = (module.decoder(latents) - flat).abs().mean()
            losses.append((loss_of(batch).item(), expected.item()))

    monkeypatch.setattr("il_bench.tokenizers.vqvae.train", note)
    fit(tokenizer, demonstrations())
    (first, reconstruction), (second, with_commitment) = losses
    assert first == pytest.approx(reconstruction, rel=1e-5)
    assert second == pytest.approx(with_commitment, rel=1e-5)


def test_one_step_of_a_fit_by_formula() -> None:
    """AdamW, 1e-3 and 1e-4: what nothing pulls decays by their product, what is pulled moves by the rate."""
    module = torch.nn.Module()
    module.idle = torch.nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
    module.pulled = torch.nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
    loss_of = lambda batch: 0.0 * module.idle.sum() + batch.mean() * module.pulled.sum()  # noqa: E731
    train(module, loss_of, torch.ones(4, 1, 1, dtype=torch.float64), steps=1)
    decayed = 2.0 * (1 - 1e-3 * 1e-4)
    np.testing.assert_allclose(oracles.array(module.idle), decayed, rtol=1e-12)
    np.testing.assert_allclose(oracles.array(module.pulled), decayed - 1e-3, rtol=1e-9)


# Revival of dead codes


@both
def test_dead_codes_are_revived_on_the_batch_and_no_others(maker: str) -> None:
    """A code whose average size falls below the threshold moves onto one of the batch, with that weight."""
    torch.manual_seed(0)
    codebook = torch.tensor([[0.0, 0.0], [50.0, 50.0], [1.0, 1.0], [-60.0, 0.0]])
    made = quantizer(maker, codebook, threshold_ema_dead_code=2)
    made._codebook.cluster_size.copy_(torch.tensor([[9.0, 2.4, 9.0, 2.6]]))
    made._codebook.embed_avg.copy_(made._codebook.cluster_size[0, :, None] * codebook)
    points, before = torch.rand(20, 2), buffers(made)
    _, index, _ = made(points[None])
    expected = oracles.ema_step(*before, points, index[0].numpy(), decay=0.8, eps=1e-5)
    died = (expected[1] < 2).tolist()
    assert died == [False, True, False, False]  # 2.4 and 2.6 times 0.8: one on either side of 2
    embed, size, average = buffers(made)
    for code, dead in enumerate(died):
        if dead:
            assert any(np.array_equal(embed[code], point) for point in oracles.array(points))
            assert size[code] == 2
            np.testing.assert_allclose(average[code], 2 * embed[code], rtol=1e-6)
        else:
            np.testing.assert_allclose(embed[code], expected[0][code], rtol=1e-4)
            assert size[code] == pytest.approx(expected[1][code])


@both
@pytest.mark.parametrize("how", ["frozen", "eval", "threshold 0"])
def test_nothing_is_revived_where_it_must_not_be(maker: str, how: str) -> None:
    made = quantizer(
        maker, torch.tensor([[0.0], [90.0]]), threshold_ema_dead_code=0 if how == "threshold 0" else 2
    )
    before = buffers(made)
    made.train(how != "eval")
    points = torch.rand(1, 20, 1)
    _, index, _ = made(points, freeze_codebook=how == "frozen")
    if how == "threshold 0":
        assert_moved(made, before, points[0], index[0], rtol=1e-3)
    else:
        assert all(np.array_equal(*pair) for pair in zip(buffers(made), before, strict=True))


def test_our_vqvae_revives_a_code_that_owns_less_than_a_tenth_of_its_share() -> None:
    tokenizer = own_copy("vqvae")
    book = tokenizer.quantizer._codebook
    threshold = 0.1 * 512 / N_CODES
    assert book.threshold_ema_dead_code == pytest.approx(threshold)
    book.cluster_size.fill_(100.0)
    book.cluster_size[0, 3] = threshold  # after a step that it owns nothing of: 0.9 of it
    book.embed[0, 3] = 1e3
    latents = tokenizer.encoder(demonstrations(64).flatten(1)).detach()
    tokenizer.quantizer.train()(latents)
    assert (latents == tokenizer.codebook[3]).all(dim=1).any()
    assert book.cluster_size[0, 3].item() == pytest.approx(threshold)


@pytest.mark.parametrize("stage", [0, 1])
def test_our_residual_vq_revives_a_code_that_owns_less_than_a_tenth_of_its_share(stage: int) -> None:
    """In its fit, from the first step on, in both stages; LeRobot's own does not."""
    torch.manual_seed(0)
    vqvae = ResidualVQTokenizer.new(8, (3, 2), embedding_dim=5, hidden_dim=16)._untrained().train()
    book = vqvae.vq_layer.layers[stage]._codebook
    threshold = 0.1 * 512 / 8
    book.cluster_size.fill_(50.0)
    book.cluster_size[0, 1], book.cluster_size[0, 2] = threshold, 1.3 * threshold  # 0.8 of it are left
    book.embed[0, 1:3] = book.embed_avg[0, 1:3] = 1e3  # so that they own nothing
    assert landed_on_the_batch(vqvae, stage)[1:3] == [True, False]
    assert book.cluster_size[0, 1].item() == pytest.approx(threshold)


@pytest.mark.parametrize("stage", [0, 1])
def test_our_vqbet_revives_codes_in_its_first_phase_where_asked(stage: int) -> None:
    torch.manual_seed(0)
    for revive_below in (0.0, 2.0):
        vqvae = ResumableVqVae(vqvae_config((3, 2), 4, 5, 16, revive_below)).train()
        book = vqvae.vq_layer.layers[stage]._codebook
        book.cluster_size.fill_(50.0)
        book.cluster_size[0, 1] = 1.0
        book.embed[0, 1], book.embed_avg[0, 1] = 1e3, 1e3
        assert landed_on_the_batch(vqvae, stage)[1] is (revive_below > 0)
