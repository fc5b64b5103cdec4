"""Sums found in a prompt, and their results."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from fractions import Fraction

NUMBER = r"\d+(?:[.,]\d+)?"
SIGN = r"(?:\s*[-+*/×·−]\s*|\s+:\s+)"
# Dates and telephone numbers are not sums.
SUM = re.compile(rf"(?<![\w.,)-])(?<!\) )(?!\d{{4}}-\d\d-\d\d){NUMBER}(?:{SIGN}{NUMBER})+(?!\w)")
PART = re.compile(rf"{NUMBER}|[-+*/×·:−]")

MULTIPLY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "*": operator.mul,
    "×": operator.mul,
    "·": operator.mul,
    "/": operator.truediv,
    ":": operator.truediv,
}
ADD: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "−": operator.sub,
}


def solved(text: str) -> str:
    """The first sum in the text with its result, `2+3 = 5`, or nothing."""
    found, outcome = SUM.search(text), result(text)
    return f"{found[0]} = {outcome}" if found and outcome else ""


def result(text: str) -> str:
    """What the first sum in the text comes to, or nothing."""
    found = SUM.search(text)
    try:
        return written(value(PART.findall(found[0]))) if found else ""
    except ZeroDivisionError:
        return ""


def value(parts: list[str]) -> Fraction:
    """What a row of numbers and signs comes to, products first."""
    numbers = [Fraction(part.replace(",", ".")) for part in parts[::2]]
    signs = parts[1::2]
    for table in (MULTIPLY, ADD):
        numbers, signs = folded(numbers, signs, table)
    return numbers[0]


def folded(
    numbers: list[Fraction], signs: list[str], table: dict[str, Callable[[Fraction, Fraction], Fraction]]
) -> tuple[list[Fraction], list[str]]:
    """The row after every sign of the table is worked out, left to right."""
    done, left = [numbers[0]], []
    for sign, number in zip(signs, numbers[1:], strict=True):
        if sign in table:
            done[-1] = table[sign](done[-1], number)
        else:
            done.append(number)
            left.append(sign)
    return done, left


def written(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else f"{float(number):.10g}"
