"""number -> a few characters a reader can trust: significant digits, signs, units."""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"


def number(value: float) -> str:
    """Returns three significant digits, with an exponent outside 0.001 to 100,000: `0.71`, `18`, `2.8e-12`."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else f"{MINUS}infinite"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{digits}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return text.replace("-", MINUS, 1) if value < 0 else text


def fixed(value: float, digits: int = 2) -> str:
    """Returns a fixed number of digits with a real minus sign: `−0.62`."""
    return f"{value:.{digits}f}".replace("-", MINUS) if math.isfinite(value) else number(value)


def factor(value: float) -> str:
    """Returns a multiplication: `×0.24`."""
    return f"×{number(value)}" if not math.isfinite(value) or not 0.01 <= abs(value) < 10 else f"×{value:.2f}"


def percent(fraction: float, digits: int = 0) -> str:
    """Returns a fraction as a percentage; the ends stay ends: 0.001 is `<1%`, never `0%`."""
    if not math.isfinite(fraction):
        return number(fraction)
    step = 10.0**-digits
    if 0 < 100 * fraction < step / 2:
        return f"<{step:.{digits}f}%"
    if 100 - step / 2 <= 100 * fraction < 100:
        return f">{100 - step:.{digits}f}%"
    return f"{100 * fraction:.{digits}f}%"


def seconds(value: float) -> str:
    """Returns a duration: `0.06 s`, `3.2 s`, `74 s`, `4 min 10 s`."""
    if value < 0.1:
        return f"{value:.2f} s"
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def quantity(signal: str, value: float, unit: str = "") -> str:
    """Returns a signal's value as its kind is read: a gain as a factor a layer, a slope as its factor, a fraction in percent."""
    if not math.isfinite(value):
        return number(value)
    if signal.endswith("_gain"):
        return f"{factor(value)} {unit or 'a layer'}"
    if signal.endswith("_slope"):
        return f"{factor(10.0**value)} a layer"
    if signal.endswith(("_fraction", "accuracy")):
        return percent(value, 1 if "accuracy" in signal else 0)
    return f"{number(value)} {unit}".strip()


def plural(count: int, noun: str) -> str:
    """Returns `1 layer`, `20 layers`, `87,690 parameters`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
