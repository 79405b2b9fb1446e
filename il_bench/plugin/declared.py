"""The targets and baselines that a run is compared with, read before it starts."""

from pathlib import Path

from il_bench.errors import IlBenchError
from il_bench.gate import baselines
from il_bench.plugin.settings import Settings, zoo_names
from il_bench.protocol import TRACKS


def path(settings: Settings) -> Path:
    """Return the baselines file of a run."""
    return settings.baselines or baselines.default_path()


def load(settings: Settings) -> baselines.Baselines:
    """Return the targets and baselines of a run; none from a file that --il-update-baselines is to make."""
    file = path(settings)
    if settings.update_baselines and not file.exists():
        return baselines.Baselines()
    return baselines.load(file)


def check(settings: Settings) -> None:
    """Raise IlBenchError now, not after an hour of rollouts, for a baselines file that cannot be used."""
    found = load(settings)
    environments = [each.environment for each in settings.registered if each.environment is not None]
    for policy, tracks in found.gates.items():
        for track in tracks:
            if track not in (*TRACKS, *environments):
                raise IlBenchError(
                    f"{path(settings)}: gates.{policy}.{track}: no such track; it is one of "
                    f"{', '.join((*TRACKS, *environments))}, correct it or register the environment"
                )
    if settings.baselines is None:
        known: dict[str, list[str]] = {}
        for track in TRACKS:
            for name in zoo_names(track):
                known.setdefault(name, []).append(track)
        baselines.check_stale(found, known, path=path(settings))
