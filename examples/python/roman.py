"""Roman numerals, from 1 to 3999."""

_VALUES = [
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
    (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
]


def to_roman(number: int) -> str:
    """Write a number as a Roman numeral."""
    if not 1 <= number <= 3999:
        raise ValueError("want a number from 1 to 3999")
    out = []
    for value, sign in _VALUES:
        times, number = divmod(number, value)
        out.append(sign * times)
    return "".join(out)


def from_roman(text: str) -> int:
    """Read a Roman numeral."""
    total, rest = 0, text
    for value, sign in _VALUES:
        while rest.startswith(sign):
            total, rest = total + value, rest[len(sign):]
    if rest or not text or to_roman(total) != text:
        raise ValueError("not a Roman numeral")
    return total
