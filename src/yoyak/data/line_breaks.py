"""Line ends that are written out as text, `\\n` or `<br>`, made line ends again."""

import re

# No text takes these time that grows with its square: a run of `\\\\\\` or `<br<br<br` is tried from its begin alone.
WRITTEN_OUT = re.compile(r"(?<!\\)(?:(?:\\+r)?\\+n\s*)+")
OF_A_PAGE = re.compile(r"(?:<br\s*)+(?P<end>/?>)?", re.IGNORECASE)
LONGEST_WORD = 200
"""In characters; of what stands before, so much is looked at."""
END_OF_SENTENCE = re.compile(r"[.!?…~]+[\"'”’)\]]*\Z")
PATH = re.compile(r"\\|(?:\A|[^\w#])[A-Za-z]:\Z")
"""In what stands before: a folder, or a drive."""
RELATIVE = re.compile(r"[\"'`“‘(]?(?:\.{1,2}|~)\Z")
"""A word that is a folder: `.\\new`, `..\\notes`; a word that ends in such marks ends a sentence."""
OF_CODE = re.compile(r"[\"'`”’][\s),;]*[),;]")
"""What closes a string in a line of a program: `printf("%d\\n");`, `'\\n', sep`."""
PARTICLE = re.compile(r"['\"`’”]?(?:은|는|이|가|을|를|과|와|로|도|만|의|에|이란|이라는|이라고|라는|라고)(?=\s|\Z)")


def repaired(text: str) -> str:
    """The text with line ends in place of `<br>`, and of `\\n` where it stands between turns or sentences.

    Inside `C:\\new\\notes`, `\\nabla` or `문자 '\\n'을` it is text like any other.
    """
    text = OF_A_PAGE.sub(lambda match: "\n" if match["end"] else match[0], text)
    parts, start = [], 0
    for match in WRITTEN_OUT.finditer(text):
        word = re.split(r"\s", text[max(start, match.start() - LONGEST_WORD) : match.start()])[-1]
        if _is_line_end(word, match[0], text[match.end() : match.end() + 10]):
            parts.append(text[start : match.start()])
            start = match.end()
    return "\n".join([*parts, text[start:]])


def _is_line_end(word: str, written: str, after: str) -> bool:
    """Of `written`, with the word before it as far as the last line end, empty after a blank, and what follows."""
    if after.startswith("#"):
        return True
    goes_on = bool(re.match("[a-z0-9_]", after)) and not written[-1].isspace()
    if OF_CODE.match(after) or (goes_on and RELATIVE.match(word)):
        return False
    if END_OF_SENTENCE.search(word):
        return True
    if goes_on:
        return False
    if PATH.search(word):
        return bool(re.match("[가-힣]", after)) and not written[-1].isspace()
    if after.startswith(("\\", "]")):
        return False
    # Of a text about the character itself: `\n을 쓰면`, `'\n'은`.
    return not (PARTICLE.match(after) and (not word or word[-1] in "'\"`‘“"))
