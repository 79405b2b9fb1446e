"""Sentences and names reach the user as text, whatever is in them."""

import pytest

from il_bench.errors import IlBenchError, printable


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("act", "act"),
        ("l\xe4ufe/\u6a5f\u68b0 $\\bad$ <b>", "l\xe4ufe/\u6a5f\u68b0 $\\bad$ <b>"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\r\nb\tc\x00", r"a\r\nb\tc\x00"),
        ("not utf-8: \udcff", r"not utf-8: \udcff"),
        ("turned \u202egnp", r"turned \u202egnp"),
    ],
)
def test_what_cannot_be_printed_is_spelt_out(given: str, shown: str) -> None:
    assert printable(given) == shown
    shown.encode()  # as files and terminals will


def test_an_error_is_one_line_that_obeys_no_escape_sequence() -> None:
    assert str(IlBenchError("runs/\x1b[2J:\n  no such policy")) == r"runs/\x1b[2J: no such policy"
