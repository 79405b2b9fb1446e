"""How much a tokenizer loses on chunks of held-out episodes: its row of the report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from il_bench.data.chunks import CENTRE_PX, Chunks, FromTheAgent
from il_bench.policies.checkpoint import Checkpoint, LoadedPolicy
from il_bench.policies.tokenizers import PolicyCoordinates
from il_bench.protocol import EXPERT
from il_bench.report.rows import MOST_COUNTS, Demonstration, Move, TokenizerRow, Vocabulary
from il_bench.tokenizers import ResidualVQTokenizer, Tokenizer

MOST_MOVES = 64  # are drawn
DECIMALS_PX = 1
AMONG = ", which includes these episodes"
#: A user's checkpoint says only the name of its data. These names say which data it was.
KNOWN = (EXPERT, "human")
PERHAPS_AMONG = ", which has the name of these demonstrations and may include these episodes"
#: Data of the zoo's policies that contain other demonstrations (the Makefile makes them).
HELD_BY = {"dagger": (EXPERT,)}


@dataclass(frozen=True, eq=False)
class FittedTokenizer:
    """A tokenizer, and what it was fitted on.

    fitted_on: in words. fit_seconds: None if it came fitted. seen_whole: the names of demonstrations whose
    held-out episodes it has, or may have, seen; with what to add to `fitted_on` if it is measured on them.
    """

    name: str
    tokenizer: Tokenizer
    coordinates: FromTheAgent | PolicyCoordinates
    fitted_on: str
    fit_seconds: float | None = None
    seen_whole: Mapping[str, str] = field(default_factory=dict)


def of_policy(policy: LoadedPolicy | Checkpoint, tokenizer: Tokenizer, name: str) -> FittedTokenizer:
    """The tokenizer inside a policy called `name`, fitted on the policy's own data.

    Raises IlBenchError if the checkpoint does not say how it normalises.
    """
    is_shipped = policy.is_shipped if isinstance(policy, Checkpoint) else policy.checkpoint.startswith("zoo/")
    data, among = policy.data, AMONG if is_shipped or policy.data in KNOWN else PERHAPS_AMONG
    return FittedTokenizer(
        f"{name}: {type(tokenizer).__name__.removesuffix('Tokenizer')}",
        tokenizer,
        PolicyCoordinates(policy),
        fitted_on=f"{name}'s own data: {data}",
        seen_whole=dict.fromkeys((data, *(HELD_BY.get(data, ()) if is_shipped else ())), among),
    )


@torch.inference_mode()
def measure(fitted: FittedTokenizer, seen: Chunks, data: str) -> tuple[TokenizerRow, float]:
    """Encode and decode `seen`, chunks of the demonstrations called `data`.

    Return the row, and the error in px of always answering the mean chunk: a tokenizer must lose less.
    """
    tokenizer, coordinates = fitted.tokenizer, fitted.coordinates
    chunks = coordinates.chunks(seen)
    indices = tokenizer.encode(chunks)
    decoded = tokenizer.decode(indices)

    def lost(answer: Tensor) -> float:
        return float((coordinates.pixels(answer, seen.agents, seen.places) - seen.actions).abs().mean())

    again = tokenizer.encode(decoded) == indices
    usage, perplexity = use_of_codes(indices, tokenizer.codebook_size)
    row = TokenizerRow(
        tokenizer=fitted.name,
        data=data,
        codebook_size=tokenizer.codebook_size,
        num_quantizers=tokenizer.num_quantizers,
        bits_per_chunk=tokenizer.bits_per_chunk,
        l1_px=lost(decoded),
        stage_l1_px=tuple(lost(stage) for stage in stages(tokenizer, indices)) or None,
        usage=usage,
        perplexity=perplexity,
        round_trip=float(again.all(dim=1).float().mean()),
        n_chunks=len(indices),
        fitted_on=fitted.fitted_on + fitted.seen_whole.get(data, ""),
        fit_seconds=fitted.fit_seconds,
        vocabulary=vocabulary(fitted, seen, indices),
    )
    return row, lost(chunks.mean(dim=0, keepdim=True).expand_as(chunks))


def use_of_codes(indices: Tensor, codebook_size: int) -> tuple[float, float]:
    """The share of the codes that occur in the tokens (N, G), and perplexity; means over the codebooks."""
    shares = [column.bincount(minlength=codebook_size) / len(column) for column in indices.T]
    usage = sum(float((share > 0).float().mean()) for share in shares)
    perplexity = sum(float(torch.special.entr(share.double()).sum().exp()) for share in shares)
    return usage / len(shares), perplexity / len(shares)


def stages(tokenizer: Tokenizer, indices: Tensor) -> list[Tensor]:
    """What a residual VQ makes of the first code of `indices` (N, G), of the first two, ...; else nothing."""
    if not isinstance(tokenizer, ResidualVQTokenizer):
        return []
    codes = tokenizer.vqvae.vq_layer.get_codebook_vector_from_indices(indices)  # (G, N, D)
    return [tokenizer.vqvae.get_action_from_latent(latent) for latent in codes.cumsum(dim=0)]


def vocabulary(fitted: FittedTokenizer, seen: Chunks, indices: Tensor) -> Vocabulary:
    """The moves that the tokens (N, G) of `seen` stand for, the most used first, and one demonstration.

    For a residual VQ, also what each first token decodes to alone.
    """
    tokenizer = fitted.tokenizer
    different, counts = _by_use(indices)
    most = different[:MOST_MOVES]
    first = _by_use(indices[:, :1])[0][:MOST_MOVES]
    of_first = stages(tokenizer, first.expand(-1, indices.shape[1]))  # the other tokens do not matter
    return Vocabulary(
        relative=fitted.coordinates.relative,
        n_moves=len(different),
        counts=tuple(counts[:MOST_COUNTS].tolist()),
        moves=_moves(fitted, most, tokenizer.decode(most)),
        demonstration=_demonstration(fitted, seen, indices),
        first=_moves(fitted, first, of_first[0]) if of_first else (),
    )


def _by_use(indices: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of the tokens (N, .), the most used first, and how often each occurs."""
    different, counts = indices.unique(dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    return different[order], counts[order]


def _moves(fitted: FittedTokenizer, indices: Tensor, decoded: Tensor) -> tuple[Move, ...]:
    """The moves of tokens (M, .), decoded to (M, W, 2), from the arena's centre."""
    centre = torch.full((len(decoded), 2), CENTRE_PX)
    paths = fitted.coordinates.pixels(decoded, centre)
    if fitted.coordinates.relative:
        paths = paths - centre[:, None]
    return tuple(
        Move(indices=tuple(tokens), path=_points(path))
        for tokens, path in zip(indices.tolist(), paths, strict=True)
    )


def _demonstration(fitted: FittedTokenizer, seen: Chunks, indices: Tensor) -> Demonstration:
    """The first episode, in successive chunks, each decoded from where the agent really was."""
    episode = int(seen.episodes[0])
    in_turn = (seen.episodes == episode) & (seen.frames % seen.actions.shape[1] == 0)
    tokens = indices[in_turn.to(indices.device)]
    places = None if seen.places is None else seen.places[in_turn]
    decoded = fitted.coordinates.pixels(fitted.tokenizer.decode(tokens), seen.agents[in_turn], places)
    return Demonstration(
        episode=episode,
        indices=tuple(map(tuple, tokens.tolist())),
        path=_points(seen.actions[in_turn].flatten(0, 1)),
        decoded=_points(decoded.flatten(0, 1)),
    )


def _points(path: Tensor) -> tuple[tuple[float, float], ...]:
    return tuple((round(x, DECIMALS_PX), round(y, DECIMALS_PX)) for x, y in path.tolist())
