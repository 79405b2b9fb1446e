"""The one error users see."""


class IlBenchError(ValueError):
    """Bad input: the message names the file, field or value, and the way out."""
