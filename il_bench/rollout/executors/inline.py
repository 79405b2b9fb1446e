"""Tasks one after the other, in this process."""

from collections.abc import Callable, Generator, Sequence


class InlineExecutor:
    """One task after the other, in this process, in the given order."""

    def run[L, T, R](
        self,
        load: Callable[[], L],
        function: Callable[[L, T], R],
        tasks: Sequence[T],
        *,
        name: Callable[[T], str] = str,
    ) -> Generator[R, None, None]:
        """See `Executor.run`."""
        if not tasks:
            return
        loaded = load()
        for task in tasks:
            yield function(loaded, task)
