import pytest

from equipoise.errors import InputError
from equipoise.markdown import table


def test_columns_are_aligned() -> None:
    text = table(["name", "n", "verdict"], [["a", "10", "better"], ["long name", "2", ""]], left=(0, 2))
    assert text.splitlines() == [
        "| name      |   n | verdict |",
        "| :-------- | --: | :------ |",
        "| a         |  10 | better  |",
        "| long name |   2 |         |",
    ]


def test_without_padding() -> None:
    assert table(["a", "b"], [["x" * 50, "y"]], left=2, aligned=False).splitlines()[:2] == ["| a | b |", "| :-- | :-- |"]


def test_a_cell_stays_a_cell() -> None:
    last = table(["a", "b"], [["one|two", "three\nfour"]]).splitlines()[-1]
    assert last == r"| one\|two | three four |"


def test_rows_are_as_long_as_the_head() -> None:
    with pytest.raises(InputError, match="a row of the table has 1 cells; its head has 2: a, b"):
        table(["a", "b"], [["x"]])
