"""Tasks one after the other, in this process."""

from collections.abc import Callable, Generator, Sequence


class InlineExecutor:
    """See `Executor`. Tasks finish in the order in which they are given."""

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
