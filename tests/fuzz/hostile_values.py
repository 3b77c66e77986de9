"""Values and bytes that are nearly right: absurd numbers, words that mean something to a shell, flipped bits."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TRICKS = st.sampled_from([
    "../../etc/passwd", "/dev/full", "/proc/self/mem", "~", "$HOME", "`id`", "a\nb", "\x1b[2J", "<script>", "%s%n",
    "x" * 5000, "-1", "0", "1e308", "nan", "inf", "-inf", "9" * 40, "8/0", "1/255", "None", "true", "[]", "{}", "--",
    "!!python/none",
])  # fmt: skip
NUMBERS = st.sampled_from([0, -1, 1, 2, 2**31, 2**63, 10**40, -0.0, 1.5, 1e308, float("inf"), float("nan")])
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS | TRICKS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=5
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """``whole`` with bits flipped, bytes cut out, doubled, or cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        action = draw(st.sampled_from(["flip", "set", "remove", "double", "cut"]))
        length = draw(st.integers(1, 16))
        if action == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "set":
            data[place : place + length] = draw(st.binary(min_size=1, max_size=length))
        elif action == "remove":
            del data[place : place + length]
        elif action == "double":
            data[place:place] = data[place : place + length]
        elif action == "cut":
            del data[place:]
    return bytes(data)


@st.composite
def absurd(draw: st.DrawFn, content: Any) -> Any:
    """Plain values with one of them replaced, removed or wrapped, somewhere within."""
    if isinstance(content, dict) and content and draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(content, key=str)))
        if not draw(st.integers(0, 5)):
            return {key: value for key, value in content.items() if key != name}
        return {**content, name: draw(absurd(content[name]))}
    if isinstance(content, list) and content and draw(st.booleans()):
        place = draw(st.integers(0, len(content) - 1))
        return [*content[:place], draw(absurd(content[place])), *content[place + 1 :]]
    return draw(VALUES)
