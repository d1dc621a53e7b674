"""Find the program in a model's answer: one set of rules for scoring, mining and reading.

An answer is reduced in this order. Line ends become LF and a byte order mark is dropped. Of an answer in channels
(harmony) only the final one counts, and of an answer with thoughts only what follows the last closing mark. The answer
ends at the first end token. A mark or a token inside a string of the program is code.

What is left is split into fenced blocks by CommonMark's rules, made lenient where models are (see `parts`), and the
program is the last block in the language that defines the entry point, joined with the blocks whose names it uses.
Without a fence it is the last run of lines that parses and defines it. A body alone continues the function that the
prompt opens.

Every step takes time in proportion to the answer's length.
"""

import ast
import builtins
import functools
import html
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lib.tasks.task import Task

NAMES = {
    "python": {"python", "py", "ipython", "pycon", "cpython"},
    "lua": {"lua", "luau"},
    "ocaml": {"ocaml", "ml", "caml"},
    "r": {"r", "rscript", "rlang"},
    "fortran": {"fortran", "f"},
    "julia": {"julia", "jl"},
}
_FOREIGN = {"bash", "sh", "shell", "console", "text", "txt", "output", "json", "java", "cpp", "c", "javascript", "js"}
_MARKDOWN = {"markdown", "md"}
_QUOTED = r'"(?:\\.|[^"\\\n])*\\?(?:"|(?=\n)|\Z)' + r"|'(?:\\.|[^'\\\n])*\\?(?:'|(?=\n)|\Z)"
# Strings and comments: what stands in them is text, whatever it looks like. First those that end on their line, then
# what opens one that may run over lines.
_SHORT = {
    "python": _QUOTED,
    "lua": _QUOTED,
    "ocaml": r"'(?:\\[^\n]{1,3}|[^'\\\n])'",
    "julia": r"'(?:\\.|[^'\\\n])'",
    "fortran": _QUOTED,
}
_OPENS = {
    "python": r"""'''|\"\"\"""",
    "lua": r"(?:--)?\[=*\[",
    "ocaml": r"\(\*|\{\||\"",
    "r": r"\"|'",
    "julia": r"#=|\"\"\"|\"",
}
_CLOSES = {"(*": "*)", "{|": "|}", "#=": "=#"}
_COMMENT = {"python": "#", "r": "#", "julia": "#", "lua": "--", "fortran": "!"}
# Names that a program defines, in languages that are not parsed here.
_BINDINGS = {
    "lua": r"\bfunction[ \t]+([\w.:]+)|^[ \t]*(?:local[ \t]+)?([A-Za-z_]\w*)[ \t]*=(?!=)",
    "ocaml": r"\b(?:let|and)(?:[ \t]+rec)?[ \t\n]+([a-z_][\w']*)",
    "r": r"(?:^|;)[ \t]*`?([A-Za-z.][\w.]*)`?[ \t]*(?:<<?-|=(?!=))|->>?[ \t]*`?([A-Za-z.][\w.]*)",
    "julia": r"\b(?:function|struct|const)[ \t]+([^\W\d][\w!]*)"
    r"|^[ \t]*([^\W\d][\w!]*)[ \t]*(?:\([^\n]*\)[ \t]*)?=(?!=)",
    "fortran": r"^(?![ \t]*end)[^\n]*?\b(?:function|subroutine|module|program)[ \t]+([a-z]\w*)",
}
_FENCE = re.compile(
    r"^(?P<lead>(?:[ \t]|[-*+][ \t]|\d{1,9}[.)][ \t])*)(?P<mark>`{3,}(?!`)|~{3,}(?!~))(?P<info>[^`\n]*)$"
    r"|(?P<span>(?<!`)(?P<ticks>`{3,})(?!`)[^`\n]+(?P=ticks)(?!`))"
    r"|(?<!`)(?P<inner>`{3,})(?!`)(?P<word>[ \t]*(?:[^\s`]{1,40}[ \t]*)?)$",
    re.MULTILINE,
)
_TAG = re.compile(r"[\s{.]*([^\W\d_]+)")
_THOUGHT = re.compile(
    r"(?P<close></(?:think|thinking|thought|reasoning)>|\[/THINK\]|◁/think▷)"
    r"|<(?:think|thinking|thought|reasoning)>|\[THINK\]|◁think▷"
)
_END = re.compile(
    r"<\|(?:im_end|im_start|end|endoftext|end_of_text|end_of_turn|end_of_sentence|eot_id|eom_id|eot|eos|return|call|start)\|>"
    r"|</s>|<eos>|<EOS>|<end_of_turn>|<start_of_turn>|<｜end▁of▁sentence｜>|<\|(?:EOS|END)\|>"
)
_LAST = re.compile(rf"(?:{_END.pattern})\Z")
MAX_TOKEN = 40  # characters of an end token
_TURN = re.compile(
    r"(?:\s*(?:<s>|<bos>|<\|begin_of_text\|>) ?)*"
    r"(?:\s*(?:<\|im_start\|>\w+\n|<start_of_turn>\w+\n|<\|start_header_id\|>\w+<\|end_header_id\|>|<\|assistant\|>))?"
)
_HARMONY = re.compile(r"\s*(?:<\|start\|>\w+)?<\|channel\|>")
_FINAL = re.compile(r"(?:^\s*|<\|start\|>assistant)<\|channel\|>final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_MARKS = "PYTHON|CODE|ANSWER|LUA|OCAML|R|FORTRAN|JULIA"
_WRAP = rf"(?:\[/?(?:{_MARKS})\]|</?(?:pre|code|answer|solution)\b[^>\n]{{0,80}}>)"
_MARKED = re.compile(rf"\[({_MARKS})\](.*?)(?:\[/\1\]|^\[[A-Z]+\][ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_WRAPPER = re.compile(rf"^[ \t]*{_WRAP}[ \t]*|{_WRAP}[ \t]*$", re.MULTILINE)
_SENTENCE = re.compile(r"[^\W\d_a-z][^\n]*[.:!?।]['\")`*]*\s*$|[^\W\d_A-Z]?[^\x00-\x7f]|[*#>-]* ?\*\*|#{1,6} ")
_CODE_LINE = re.compile(r"[={};]|<-|\bend\b|^\s*(?:local|function|let|program|print|return|write|read)\b", re.I | re.M)
_START = re.compile(
    r"def |class |async def |import |from \S+ import |@\w|[\w.,\[\]\"' *]+?[-+*/%&|^]?=[^=]"
    r"|#|[\w.]+\(|if |for |while |with |try:|['\"]"
)
MAX_PARSES = 60  # of bare text, each as long as the text at most
_INDENTED = re.compile(r"(?:^(?: {4}|\t)[^\n]*\n(?:[ \t]*\n)*)+", re.MULTILINE)
MAX_NESTED = 3  # quotations in quotations, wrappers in wrappers


class Token(NamedTuple):
    """A string, a comment, a run of a fence's character, or the mark of a text that never closes; and its place."""

    start: int
    end: int
    is_run: bool
    is_open: bool = False


class Part(NamedTuple):
    """One fenced block, or the text before, between or after blocks; `start` and `end` are its place in the answer."""

    text: str
    tag: str | None  # of a block: its first word without marks and digits, "" for none; of text: None
    start: int
    end: int


def extract_code(answer: str, language: str, entry_point: str = "", prompt: str = "") -> str | None:
    """Return the program in `answer`, or None when it holds none; a text without any code is returned as it is.

    `entry_point` is the name that a function task asks for ("" for a program task), `prompt` the task's prompt.
    """
    language = language.lower()
    text = _with_ticks(final_answer(answer, language), language, entry_point)
    found = parts(text, language, entry_point)
    fenced = [part for part in found if part.tag is not None]
    outside = "\n".join(part.text for part in found if part.tag is None)
    if not fenced:
        return _bare(text, language, entry_point, prompt)
    own = [part.text for part in fenced if part.tag in _names(language)]
    if not own and (wrapping := [part.text for part in fenced if part.tag in _MARKDOWN and _FENCE.search(part.text)]):
        return extract_code(wrapping[-1], language, entry_point, prompt)
    groups = [own, [part.text for part in fenced if not part.tag]]
    groups.append([part.text for part in fenced if part.tag and part.tag not in _names(language)])
    groups = [[code for code in group if code.strip()] for group in groups]
    codes = [code for code in (part.text for part in fenced) if code.strip()]
    for group in groups:
        if chosen := _last_that_defines(group, language, entry_point):
            return _joined(chosen, codes, language)
    if entry_point and defines(runs := _bare(outside, language, entry_point, "") or "", entry_point, language):
        return runs
    group = next((group for group in groups if group), [])
    if whole := next((whole for code in reversed(group) if (whole := continued(prompt, code, entry_point))), None):
        return whole
    if entry_point and language == "python":
        group = [code for code in group if _definitions(code)] or group
    return _joined(group[-1], codes, language) if group else None


def program_of(answer: str, task: Task) -> str | None:
    """Return the program in an answer to `task`, or None when it holds none."""
    return extract_code(
        answer, task.programming_language, task.entry_point if task.mode == "function" else "", task.prompt
    )


def final_answer(answer: str, language: str) -> str:
    """Return a model's final answer without channels, thoughts, end tokens, byte order mark and carriage returns."""
    text = re.sub("^\ufeff", "", answer.replace("\r\n", "\n").replace("\r", "\n"), flags=re.MULTILINE).rstrip()
    while token := _LAST.search(text, max(0, len(text) - MAX_TOKEN)):
        text = text[: token.start()].rstrip()
    if _HARMONY.match(text):
        finals = list(_FINAL.finditer(text))
        text = text[finals[-1].end() :] if finals else ""
    elif text.startswith("analysis") and "assistantfinal" in text:  # the same with its tokens decoded away
        text = text.rpartition("assistantfinal")[2]
    turn = _TURN.match(text)
    text = _unquoted(text[turn.end() :] if turn else text)
    marks = _outside_code(_THOUGHT, text, language)
    closing = [mark for mark in marks if mark["close"]]
    start = closing[-1].end() if closing else 0
    end = next((mark.start() for mark in marks if mark.start() >= start), len(text))
    text = text[start:end]
    end = next(
        (token.start() for token in _outside_code(_END, text, language) if text[: token.start()].strip()), len(text)
    )
    return f"{text[:end]}\n" if text[:end].strip() else ""


def _outside_code(marks: re.Pattern[str], text: str, language: str) -> list[re.Match[str]]:
    """Return the matches of `marks` that are not inside a string or comment of a program in `text`."""
    found = list(marks.finditer(text))
    if not found or (language == "python" and parsed(text)):
        return []
    taken: list[tuple[int, int]] = []
    for part in parts(text, language):
        if part.tag is None:
            taken += [match.span() for match in _said(language).finditer(text, part.start, part.end)]
        else:
            tokens = _tokens(text, _language_of(part.tag, language), part.start, part.end)
            taken += [(token.start, token.end) for token in tokens if not token.is_run]
    outside, place, thinks = [], 0, False
    for match in found:
        while place < len(taken) and taken[place][1] <= match.start():
            place += 1
        line = text[text.rfind("\n", 0, match.start()) + 1 : _line_end(text, match.end())]
        in_code = place < len(taken) and taken[place][0] <= match.start()
        if not in_code or (thinks and line.strip() == match[0]):  # a draft may leave a string open
            outside.append(match)
            thinks = match.lastgroup != "close"
    return outside


@functools.cache
def _said(language: str) -> re.Pattern[str]:
    """Return a pattern of what is a string or a comment in code without a fence, as far as sentences allow to tell."""
    return re.compile(
        r"""(?<!\w)(['"])[^'"\n]*\1(?!\w)|`[^`\n]+`|"""
        rf"""(?:(?<=\n)|(?<=[ \t]{{2}})){_COMMENT.get(language, "(?!)")}[^\n]*(?=\n)"""
    )


def _unquoted(text: str) -> str:
    """Take `> ` off the lines of every quotation that holds a fence, quotations in quotations included."""
    for _ in range(MAX_NESTED):
        if not re.search(r"^ {0,3}>[ >]*(?:`{3}|~{3})", text, re.MULTILINE):
            break
        pieces = re.split(r"((?:^ {0,3}>(?!>>)[^\n]*(?:\n|\Z))+)", text, flags=re.MULTILINE)
        pieces[1::2] = [re.sub(r"^ {0,3}> ?", "", piece, flags=re.MULTILINE) for piece in pieces[1::2]]
        text = "".join(pieces)
    return text


# ------------------------------------------------------------------------------------------------------------- fences


def parts(text: str, language: str, entry_point: str = "") -> list[Part]:
    """Split an answer into fenced blocks and the text around them.

    A fence opens at the start of a line, in a list item or after a word; up to its own indentation is taken off every
    line of its block. The first fence outside the block's strings and comments that is long enough closes it, wherever
    on its line it stands. A block without a closing fence runs to the end. Code before the first fence is a block too:
    then the prompt has opened it, and the fence closes it.
    """
    found: list[Part] = []
    end, at = close_fence(text, 0, "```", language)
    if (
        at > end
        and begins_with_code(text[:end], language, entry_point)
        and _tag(text[at : _line_end(text, at)]) not in _names(language)
    ):
        found = [Part(text[:end] if language == "python" else _without_sentences(text[:end]), "", 0, end)]
    else:
        at = 0
    look = at
    while fence := _FENCE.search(text, look):
        look = fence.end()
        if fence["span"]:
            continue
        mark, info = fence["mark"] or fence["inner"], fence["info"] or fence["word"] or ""
        first, tag = look + 1, _tag(info)
        end, resume = close_fence(text, first, mark, _language_of(tag, language))
        code = text[first:end] if resume > end else _without_talk(text[first:end], _language_of(tag, language))
        found.append(Part(text[at : fence.start()], None, at, fence.start()))
        found.append(Part(_cleaned(code, info, fence["lead"] or "", language), tag, first, end))
        at = look = resume
    spans = [match["span"].strip("`") for match in _FENCE.finditer(text) if match["span"]]
    if not any(part.tag is not None for part in found):  # a program on one line, between fences
        tags = [(_tag(span), span) for span in spans if _tag(span) in _names(language)]
        tags += [("", span) for span in spans if defines(span.strip(), entry_point, language)]
        found += [Part(span.strip()[len(tag) :].strip(), tag, 0, 0) for tag, span in tags]
    return [*found, Part(text[at:], None, at, len(text))]


def close_fence(text: str, start: int, mark: str, language: str) -> tuple[int, int]:
    """Return where the block that begins at `start` ends and where to read on; without a closing fence, the end."""
    if start >= len(text):
        return len(text), len(text)
    tokens = _tokens(text, language, start, fence=mark[0])
    run = next((token for token in tokens if token.is_run and _closes(token, text, mark)), None)
    end = run.start if run else len(text)
    if language == "python" and not parsed(text[start:end]):  # an open string may have hidden the fence
        line = re.compile(rf"^[ \t]*{mark}{mark[0]}*[ \t]*$", re.MULTILINE).search(text, start, end)
        if line:
            return line.start(), line.end()
    if run is None:
        return len(text), len(text)
    rest = text[run.end : _line_end(text, run.end)]
    opens_another = rest[:1].isalpha() and _tag(rest) in _KNOWN_TAGS
    return end, end if opens_another else run.end


def _closes(run: Token, text: str, mark: str) -> bool:
    if run.end - run.start < len(mark):
        return False
    return mark[0] == "`" or not text[run.end : _line_end(text, run.end)].strip()


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


@functools.cache
def _lexer(language: str, fence: str) -> re.Pattern[str]:
    """Return a pattern of what opens a long text (`open`), short texts, and runs of a fence's character (`run`).

    A comment ends before a fence at the end of its line, unless it holds nothing but the fence.
    """
    sources = [rf"(?P<open>{_OPENS.get(language, '(?!)')})"]
    if language in _SHORT:
        sources.append(_SHORT[language])
    if comment := _COMMENT.get(language):
        sources.append(rf"{comment}['\s]*`{{3,}}[^\n]*|{comment}(?:(?!`{{3,}}[ \t]*$)[^\n])*")
    return re.compile("|".join([*sources, rf"(?P<run>{fence}{{3,}})"]), re.DOTALL | re.MULTILINE)


def _tokens(text: str, language: str, start: int = 0, end: int | None = None, fence: str = "`") -> Iterator[Token]:
    """Yield the strings and comments of a program, and the runs of a fence's character outside them."""
    at, limit = start, len(text) if end is None else end
    hopeless: set[str] = set()  # what no longer closes before the end, so that it is not looked for again
    while match := _lexer(language, fence).search(text, at, limit):
        at = match.end()
        opening = match["open"]
        if not opening:
            yield Token(match.start(), at, bool(match["run"]))
            continue
        closing = _CLOSES.get(opening) or opening.lstrip("-").replace("[", "]")
        ended = None if closing in hopeless else _until(closing).match(text, at, limit)
        if ended:
            at = ended.end()
            yield Token(match.start(), at, False)
        else:
            hopeless.add(closing)
            yield Token(match.start(), at, False, is_open=True)


@functools.cache
def _until(closing: str) -> re.Pattern[str]:
    """Return a pattern of everything up to `closing`; a backslash takes the meaning from a quote."""
    if closing[0] in "\"'":
        return re.compile(rf"(?:[^{closing[0]}\\]|\\.|(?!{closing}){closing[0]})*{closing}", re.DOTALL)
    return re.compile(rf".*?{re.escape(closing)}", re.DOTALL)


def ends_inside_text(code: str, language: str) -> bool:
    """Return whether the end of `code` lies inside a string or a comment that runs over lines."""
    return any(token.is_open for token in _tokens(code, language))


def _without_text(code: str, language: str) -> str:
    """Return code with a blank for every string and comment."""
    pieces, at = [], 0
    for token in _tokens(code, language):
        if not token.is_run:
            pieces.append(code[at : token.start])
            at = token.end
    return " ".join([*pieces, code[at:]])


def _tag(info: str) -> str:
    """Return an info string's language: "python" of `python3.11`, `{.python}` and `python:solution.py`."""
    word = _TAG.match(info)
    return word[1].lower() if word else ""


def _names(language: str) -> set[str]:
    return NAMES.get(language, {_tag(language)})


_KNOWN_TAGS = set().union(*NAMES.values(), _FOREIGN)


def _language_of(tag: str | None, language: str) -> str:
    """Return a block's language: that of its tag if it is known, none for a foreign tag, else the task's."""
    known = next((name for name, names in NAMES.items() if tag in names), None)
    return known or ("" if tag in _FOREIGN else language)


def _cleaned(code: str, info: str, lead: str, language: str) -> str:
    """Return a block's code without the fence's indentation, a byte order mark and a first line that is a tag."""
    if lead:
        code = re.sub(rf"^[ \t]{{1,{len(lead)}}}", "", code, flags=re.MULTILINE)
    first, newline, rest = code.partition("\n")
    if newline and not info.strip() and first.strip().lower() in _names(language) | {language}:
        code = rest
    begins = re.search(r"(?:^|\s)((?:def|class|import|from)\s.*)", info)  # code on the line of its fence
    if language == "python" and begins and _tag(info[: begins.start()]) in {"", *_names(language)}:
        code = f"{begins[1]}\n{code}"
    if language == "python":
        code = _without_prompts(code)
    if language == "python" and not parsed(code, dedent=False) and _definitions(textwrap.dedent(code)):
        return textwrap.dedent(code)
    return code


# -------------------------------------------------------------------------------------------------------------- names


def defines(code: str, name: str, language: str) -> bool:
    """Return whether `code` binds `name` at its top level; a comment or a string that holds the name does not."""
    return bool(name) and (name.lower() if language == "fortran" else name) in defined_names(code, language)


def defined_names(code: str, language: str) -> set[str]:
    """Return the names that a program binds at its top level."""
    if language == "python":
        return _bound(tree) if (tree := parsed(code, dedent=False)) else _definitions(code)
    if language not in _BINDINGS:
        return set()
    bare = _without_text(code.lower() if language == "fortran" else code, language)
    return {name for match in re.finditer(_BINDINGS[language], bare, re.MULTILINE) for name in match.groups() if name}


def _definitions(code: str) -> set[str]:
    """Return the functions and classes that Python code defines at its margin, whether or not it parses."""
    return set(re.findall(r"^(?:async\s+def|def|class)\s+(\w+)", code, re.MULTILINE))


def _bound(tree: ast.AST) -> set[str]:
    """Return the names that a module binds outside its functions and classes, these included."""
    names: set[str] = set()
    todo = list(ast.iter_child_nodes(tree))
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif not isinstance(node, ast.Lambda):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            todo += ast.iter_child_nodes(node)
    return names


def missing_names(code: str) -> set[str]:
    """Return the names that Python code reads and neither it nor Python defines; an empty set if it does not parse."""
    tree = parsed(code)
    if tree is None:
        return set()
    read: set[str] = set()
    bound = set(dir(builtins)) | {"__file__", "__builtins__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
    return read - bound


def _last_that_defines(group: Sequence[str], language: str, entry_point: str) -> str | None:
    return next((code for code in reversed(group) if defines(code, entry_point, language)), None)


def _joined(chosen: str, codes: Sequence[str], language: str) -> str:
    """Return `chosen` with the other blocks that define names it lacks, in the order of the answer."""
    names = {code: defined_names(code, language) for code in codes}
    used, todo = {chosen}, [chosen]
    while todo:
        code = todo.pop()
        if language == "python":
            lacking = missing_names(code)
        else:
            lacking = set(re.findall(r"[\w.!']+", _without_text(code, language))) - names.get(code, set())
        lacking -= set().union(*(names.get(one, set()) for one in used))
        more = [
            code for code in codes if code not in used and names[code] & lacking and not names[code] & names[chosen]
        ]
        used.update(more)
        todo += more
    if used == {chosen}:
        return chosen
    order = dict.fromkeys(code for code in codes if code in used)
    return "\n".join(code.rstrip("\n") + "\n" for code in order)


# ---------------------------------------------------------------------------------------------------- without a fence


def _bare(text: str, language: str, entry_point: str, prompt: str) -> str | None:
    """Return the program in a text without blocks: all of it if it parses, else the code between the sentences."""
    if not text.strip():
        return None
    text = _before_fence(text, language, entry_point)
    if language != "python":
        return _without_sentences(_unwrapped(_marked(text, language, entry_point)))
    if parsed(text, dedent=False) and not _trivial_ends(text) and not _returns(text):
        return text
    if whole := continued(prompt, text, entry_point):
        return whole
    text = _without_prompts(_unwrapped(_marked(text, language, entry_point)))
    runs = _runs(text)
    found = [run for run in runs if defines(run, entry_point, language)]
    if not found and entry_point:  # Markdown's other kind of block: lines indented by four blanks or a tab
        blocks = (textwrap.dedent(block) for block in _INDENTED.findall(text))
        found = [block for block in blocks if parsed(block) and defines(block, entry_point, language)]
    if found:
        return _joined(found[-1], runs, language)
    return continued(prompt, text, entry_point) or (max(runs, key=len) if runs else text)


def _without_prompts(text: str) -> str:
    """Return an interpreter's session without its prompts and output, any other text as it is."""
    if not re.search(r"^>>> ", text, re.MULTILINE) or parsed(text):
        return text
    return "\n".join(line[4:] for line in text.split("\n") if re.match(r"(?:>>>|\.\.\.)(?: |$)", line))


def _before_fence(text: str, language: str, entry_point: str) -> str:
    """Return the program before a closing fence that a sentence follows on its line."""
    run = next((token for token in _tokens(text, language) if token.is_run), None)
    return text[: run.start] if run and begins_with_code(text[: run.start], language, entry_point) else text


def _with_ticks(text: str, language: str, entry_point: str) -> str:
    """Return text with a fence of backticks for a block between lines of three quotes.

    The first line has the language's tag, or the block defines the entry point.
    """
    tags = "|".join(map(re.escape, sorted(_names(language))))
    quoted = re.compile(
        rf"^('''|\"\"\")({tags})?[ \t]*\n(.*?)(?:^\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE | re.IGNORECASE
    )
    if _FENCE.search(text) or not quoted.search(text) or (parsed(text) and defines(text, entry_point, "python")):
        return text

    def ticked(block: re.Match[str]) -> str:
        is_code = block[2] or defines(block[3], entry_point, language)
        return f"```{block[2] or ''}\n{block[3]}```" if is_code else block[0]

    return quoted.sub(ticked, text)


def _without_talk(code: str, language: str) -> str:
    """Return a block that is never closed without the sentences after its code."""
    lines = code.split("\n")
    if language == "python":
        end = len(lines) if parsed(code) else _error_line(lines, 0, len(lines))
        rest = next((line for line in lines[end:] if line.strip()), "")
        talk = " " in rest.strip() or _SENTENCE.match(rest)
        return "\n".join(lines[:end]) + "\n" if end and talk and not _START.match(rest) else code
    while lines and (not lines[-1].strip() or (_SENTENCE.match(lines[-1]) and len(lines[-1].split()) > 2)):
        lines.pop()
    return "\n".join(lines) + "\n" if lines else code


def _marked(text: str, language: str, entry_point: str) -> str:
    """Return the last block between marks such as [PYTHON] and [/PYTHON] that can be the program, else all of text."""
    blocks = [block[2] for block in _MARKED.finditer(text)]
    if entry_point:
        return _last_that_defines(blocks, language, entry_point) or text
    return next((block for block in reversed(blocks) if "\n" in block.strip()), text)


def _unwrapped(text: str) -> str:
    """Return text without `[PYTHON]`, `<pre>`, `<code>` and single backticks around it."""
    plain = text
    for _ in range(MAX_NESTED):
        plain = _WRAPPER.sub("", plain)
    if plain != text and re.search(r"<(?:pre|code)\b", text):
        plain = html.unescape(plain)
    ticked = re.fullmatch(r"\s*`([^`\n]+)`\s*", plain)
    return ticked[1] if ticked else plain


def _without_sentences(text: str) -> str:
    """Return text without the sentences before and after the code."""
    lines = text.split("\n")
    kept = [number for number, line in enumerate(lines) if line.strip() and not _SENTENCE.match(line)]
    return "\n".join(lines[kept[0] : kept[-1] + 1]) + "\n" if kept else text


def _runs(text: str) -> list[str]:
    """Return the runs of lines that parse as Python, without words at their ends that only happen to parse."""
    lines = text.split("\n")
    runs, at = [], 0
    for _ in range(MAX_PARSES):
        while at < len(lines) and not _START.match(lines[at]):
            at += 1
        if at == len(lines):
            break
        end = _error_line(lines, at, len(lines))
        if end > at:
            run = "\n".join(lines[at:end])
            first, last = _trivial_ends(run) or (0, end - at)
            if last > first:
                runs.append("\n".join(lines[at + first : at + last]) + "\n")
        at = max(end, at + 1)
    return runs


def _error_line(lines: Sequence[str], start: int, end: int) -> int:
    """Return the last `end` at a line of the margin for which lines[start:end] parses, or `start`."""
    for _ in range(8):
        try:
            parse("\n".join(lines[start:end]) + "\n")
            return end
        except SyntaxError as error:
            end = min(end - 1, start + max(0, (error.lineno or 1) - 1))
        except (ValueError, RecursionError, MemoryError):
            return start
        while end > start and (not lines[end].strip() or lines[end][0] in " \t)]}"):
            end -= 1
        if end <= start:
            return start
    return start


def _trivial_ends(code: str) -> tuple[int, int] | None:
    """Return the lines [first, last) of a module without bare words at its ends, or None when there are none."""
    tree = parsed(code, dedent=False)
    body = list(tree.body) if tree else []
    while body and _is_trivial(body[-1]):
        body.pop()
    while body and _is_trivial(body[0]):
        body.pop(0)
    if tree is None or len(body) == len(tree.body):
        return None
    return (body[0].lineno - 1, body[-1].end_lineno or 0) if body else (0, 0)


def _is_trivial(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    plain = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr, ast.ListComp)
    if not isinstance(statement, ast.Expr) or isinstance(statement.value, plain):
        return False
    return not (isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str))


def begins_with_code(text: str, language: str, entry_point: str = "") -> bool:
    """Return whether text is code from its first line on: a program or a function's body, not a sentence or output."""
    if language != "python":
        first = text.lstrip().partition("\n")[0]
        if not first or _SENTENCE.match(first):
            return False
        return (
            defines(text, entry_point, language)
            if entry_point and first == text.strip()
            else bool(_CODE_LINE.search(text))
        )
    if tree := parsed(text):
        return not all(map(_is_trivial, tree.body)) and bool(tree.body)
    return bool(text.strip()) and bool(parsed(f"def _():\n    {text.lstrip()}\n", dedent=False))


def _returns(code: str) -> bool:
    """Return whether a module holds a `return` of its own, so that it is the body of a function."""
    tree = parsed(code, dedent=False)
    return bool(tree) and any(isinstance(node, ast.Return) for node in _own_nodes(tree))


def _own_nodes(tree: ast.Module | None) -> list[ast.AST]:
    todo: list[ast.AST] = [tree] if tree else []
    found: list[ast.AST] = []
    while todo:
        node = todo.pop()
        found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.expr):
            todo += ast.iter_child_nodes(node)
    return found


# ------------------------------------------------------------------------------------------------------------- bodies


def continued(prompt: str, body: str, entry_point: str) -> str | None:
    """Return the prompt's open Python function with `body`, or None when it is not open or `body` is not one."""
    if not entry_point or not body.strip() or (parsed(body, dedent=False) and not _returns(body)):
        return None
    opened = (
        prompt if parsed(f"{prompt.rstrip()}\n        pass\n", dedent=False) else open_function(prompt, entry_point)
    )
    if not opened or not defines(f"{opened.rstrip()}\n        pass\n", entry_point, "python"):
        return None
    opened, body = opened.rstrip(), body.strip("\n")
    flat = textwrap.dedent(body)
    variants = [body, *(pad + body.lstrip() for pad in ("    ", "        "))]
    variants += [textwrap.indent(flat, pad) for pad in ("    ", "        ")]
    for variant in variants:
        if parsed(whole := f"{opened}\n{variant}\n", dedent=False) and not _returns(whole):
            return whole
    return None


def open_function(prompt: str, entry_point: str) -> str:
    """Return the end of a prompt from the last line on that begins the entry point, or ""."""
    starts = list(re.finditer(rf"^(?:async def|def|class) {re.escape(entry_point)}\b", prompt, re.MULTILINE))
    return prompt[starts[-1].start() :] if starts else ""


def parse(code: str) -> ast.Module:
    """Return the syntax tree of Python code, without a word of what Python would warn its author about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code)


def parsed(code: str, *, dedent: bool = True) -> ast.Module | None:
    """Return the syntax tree of Python code, None when it does not parse; `dedent` first removes common indentation.

    The tree is shared: it may be read only.
    """
    return _parsed(textwrap.dedent(code) if dedent else code)


@functools.lru_cache(maxsize=16)  # one answer's texts, each looked at by several rules
def _parsed(code: str) -> ast.Module | None:
    try:
        return parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
