"""Words that the filter does not let through. Mild ones: this is a stand-in."""

from __future__ import annotations

import re

PROFANE = re.compile(r"\b(?:дурак\w*|идиот\w*|чёрт\w*|черт побери|damn\w*|idiot\w*|stupid)\b", re.IGNORECASE)
REFUSAL = "Что-то в вашем вопросе меня смущает. Может, поговорим на другую тему?"


def is_profane(text: str) -> bool:
    return bool(PROFANE.search(text))
