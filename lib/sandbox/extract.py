"""Find the program in a model's completion."""

import re

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n`]*)\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_NAMES = {
    "python": {"python", "py", "python3"},
    "lua": {"lua"},
    "ocaml": {"ocaml", "ml"},
    "r": {"r"},
    "fortran": {"fortran", "f90", "f95", "fortran90"},
    "julia": {"julia", "jl"},
}


def extract_code(completion: str, language: str) -> str | None:
    """The last longest fenced block tagged with the language, else untagged; text without fences as it is.

    None when nothing is left. A block whose closing fence is missing runs to the end.
    """
    text = completion.replace("\r\n", "\n")
    blocks = [(match[2].strip().lower(), match[3]) for match in _FENCE.finditer(text)]
    if not blocks:
        return None if not text.strip() or "```" in text else text
    names = _NAMES.get(language.lower(), {language.lower()})
    tagged = [code for tag, code in blocks if tag.split(" ")[0] in names]
    chosen = [code for code in tagged or [code for tag, code in blocks if not tag] if code.strip()]
    return max(reversed(chosen), key=len) if chosen else None
