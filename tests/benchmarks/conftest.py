"""Scripts' command lines, run in this process."""

from collections.abc import Callable

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Run a script's `main` with these arguments."""

    def call(main: Callable[..., None], *arguments: str) -> Result:
        app = typer.Typer()
        app.command()(main)
        return CliRunner().invoke(app, arguments)

    return call
