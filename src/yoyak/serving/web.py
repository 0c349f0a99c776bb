"""A page that shows the models' summaries of a pasted dialogue side by side; for this machine alone."""

import html
import json
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware

from yoyak.core.errors import UserError
from yoyak.core.language import N_, Language, chosen, translated
from yoyak.core.records import Candidate, Prediction
from yoyak.core.text import TAG
from yoyak.data.dialogues import turns
from yoyak.ensembling.weighting import ENSEMBLE
from yoyak.preflight.params import Params
from yoyak.reporting.highlights import TAG_STYLE, colour
from yoyak.serving import inputs, summarizer
from yoyak.serving.guard import Guard
from yoyak.serving.summarizer import Load, Summaries

HOST = "127.0.0.1"
FONTS = ["Pretendard", "Apple SD Gothic Neo", "Noto Sans KR", "Noto Sans CJK KR", "Malgun Gothic", "sans-serif"]
"""Fonts of the reader's own machine: nothing is fetched from elsewhere."""
STYLES = [TAG_STYLE, Path(__file__).with_name("page.css")]
EXAMPLE = """\
#Person1#: 여보세요, 한빛치과죠? 내일 오후 세 시에 예약한 사람인데요, 시간을 좀 바꿀 수 있을까요?
#Person2#: 네, 성함이 어떻게 되세요?
#Person1#: 김민지예요. 갑자기 회의가 잡혀서 내일은 어려울 것 같아요.
#Person2#: 확인했습니다. 목요일 오전 열 시나 금요일 오후 다섯 시가 비어 있어요.
#Person1#: 그럼 금요일 오후 다섯 시로 부탁드려요. 혹시 주차도 되나요?
#Person2#: 네, 건물 지하에 두 시간까지 무료로 세우실 수 있어요. 금요일에 뵙겠습니다.
"""
MOST_CHARACTERS = 200_000
"""Of a dialogue: more than a hundred times the longest of the competition."""
MOST_WAITING = 32
"""Requests; more are refused."""
MOST_OPEN = 64
"""Pages of which Gradio keeps a copy of all it shows, 15 kB each; any other gets a new one when it asks again."""
FAULTS = {
    "empty": N_("empty summary"),
    "truncated": N_("unfinished"),
    "foreign_script": N_("foreign letters that the dialogue has not"),
}
LABELS = {
    "#dialogue [data-testid=block-info]": N_("Dialogue"),
    "#dialogue .info-text": N_("One turn per line, each beginning with its speaker's tag."),
    "#models [data-testid=block-info]": N_("Models"),
    "#models input[name=ensemble] + span": N_("ensemble"),
    "#example": N_("Example"),
    "#summarize": N_("Summarise"),
}
"""What Gradio's own parts of the page say, by their selectors: they are switched by page.js, all else by page.css."""
WORD_WITH_TAG = re.compile(rf"{TAG.pattern}\w{{0,4}}")


def serve(port: int) -> None:
    """Show the page until the user stops it. Each model is loaded when it is first needed, and kept."""
    # Read by gradio as it is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Requests of which it counts seconds for a page of its own that is switched off; all of them after each request.
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"
    _pass_by_proxies()
    params = summarizer.open_project()
    names = summarizer.offered(params)
    page = build(params, names, cache(summarizer.load))
    try:
        _launch(page, port, names)
    except OSError:
        raise UserError(f"port {port} of {HOST} is taken; choose another with --port") from None
    print(f"http://{HOST}:{port} (Ctrl+C ends it)", file=sys.stderr, flush=True)
    page.block_thread()


def _pass_by_proxies() -> None:
    """Gradio asks its own server whether it is up, which no proxy can reach."""
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = f"{others},{HOST}" if others else HOST


def _launch(page: Any, port: int, names: list[str]) -> None:
    # One request at a time: two would share the memory of one, and take as long.
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    page.launch(
        server_name=HOST,
        server_port=port,
        prevent_thread_lock=True,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        # Else dialogues would stay in the browser's storage.
        run_history=False,
        footer_links=[],
        quiet=True,
        state_session_capacity=MOST_OPEN,
        app_kwargs={"middleware": [Middleware(Guard, port=port, models=names)]},
        theme=_theme(),
        css="\n".join(style.read_text(encoding="utf-8") for style in STYLES),
        js=_script(),
    )


def _theme() -> Any:
    """Gradio's own, in colours that people with weak eyes can read, too."""
    import gradio

    theme = gradio.themes.Soft(
        primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=["monospace"], radius_size="lg"
    )
    return theme.set(
        body_background_fill="*neutral_50",
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        block_title_background_fill="none",
        block_title_background_fill_dark="none",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_padding="0",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        button_secondary_background_fill="*neutral_200",
        button_secondary_background_fill_hover="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
    )


def build(params: Params, names: list[str], load: Load) -> Any:
    """The page, which offers `names` and asks the models that `load` gives."""
    import gradio

    def summarize(dialogue: str | None, chosen: list[str]) -> Iterator[str]:
        try:
            yield from _cards_as_they_come(params, dialogue or "", [name for name in names if name in chosen], load)
        except UserError as error:
            # In the place of the cards, not as a toast of Gradio's: that one goes away, and old cards stay.
            yield _alert(error.html if isinstance(error, PageError) else _in_the_terminal(error))

    korean = {selector: translated(label, "ko") for selector, label in LABELS.items()}
    with gradio.Blocks(title="요약 · yoyak", analytics_enabled=False) as page:
        gradio.HTML(_header())
        dialogue = gradio.Textbox(
            label=korean["#dialogue [data-testid=block-info]"],
            info=korean["#dialogue .info-text"],
            placeholder="#Person1#: 안녕하세요.\n#Person2#: 네, 안녕하세요.",
            lines=9,
            max_lines=24,
            elem_id="dialogue",
        )
        chosen = gradio.CheckboxGroup(
            choices=[(translated(name, "ko") if name == ENSEMBLE else name, name) for name in names],
            value=names,
            label=korean["#models [data-testid=block-info]"],
            elem_id="models",
        )
        with gradio.Row():
            example = gradio.Button(korean["#example"], min_width=120, elem_id="example")
            button = gradio.Button(korean["#summarize"], variant="primary", min_width=120, elem_id="summarize")
        cards = gradio.HTML(elem_id="cards")
        example.click(lambda: EXAMPLE, outputs=dialogue, api_visibility="private")
        button.click(summarize, [dialogue, chosen], cards, api_visibility="private")
    return page


def _script() -> str:
    """What the page runs once it is there."""
    languages: tuple[Language, ...] = ("en", "ko")
    labels = {language: {at: translated(label, language) for at, label in LABELS.items()} for language in languages}
    given = json.dumps({"labels": labels, "first": chosen()}, ensure_ascii=False)
    return f"() => {{ const GIVEN = {given};\n{Path(__file__).with_name('page.js').read_text(encoding='utf-8')} }}"


def _header() -> str:
    title, told = _both("Summaries"), _both("Paste a dialogue, and the trained models summarise it.")
    switch = '<button id="language" type="button"><span lang="ko">English</span><span lang="en">한국어</span></button>'
    return f"<header><div><h1>{title}</h1><p>{told}</p></div>{switch}</header>"


def _both(message: str, **values: object) -> str:
    """A message as HTML in both languages, of which page.css shows one."""
    shown = {language: translated(message, language).format(**values) for language in ("en", "ko")}
    return "".join(f'<span lang="{language}">{html.escape(text)}</span>' for language, text in shown.items())


class PageError(UserError):
    """A fault of what a reader typed or chose."""

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message)
        self.html = _both(message, **values)


def _alert(told: str) -> str:
    return f'<p class="error" role="alert">{told}</p>'


def _in_the_terminal(error: UserError) -> str:
    """What the page says of a fault of the project's files or the machine: its line goes to who started the server."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    return _both("It was not summarised. The terminal in which `yoyak serve` was started tells why.")


def _cards_as_they_come(params: Params, dialogue: str, names: list[str], load: Load) -> Iterator[str]:
    """The page's lower half, again and again, with one more card each time."""
    if not dialogue.strip():
        raise PageError(N_("The dialogue is empty. Paste one, or press Example."))
    if len(dialogue) > MOST_CHARACTERS:
        told = N_("The dialogue is too long ({letters} letters). Up to {most} are summarised.")
        raise PageError(told, letters=f"{len(dialogue):,}", most=f"{MOST_CHARACTERS:,}")
    if not turns(dialogue):
        raise PageError(N_("The dialogue has no turns. Write one turn per line."))
    if not names:
        raise PageError(N_("Choose at least one model."))
    row = inputs.of_text(dialogue, "대화")
    notes = _note() if inputs.notes([row]) else ""
    cards: list[str] = []
    yield _grid(notes, [*cards, *map(_waiting, names)])
    for summaries in summarizer.summarize(params, names, [row], load):
        cards.append(card(summaries))
        yield _grid(notes, [*cards, *map(_waiting, names[len(cards) :])])


def _grid(notes: str, cards: list[str]) -> str:
    return f'{notes}<div class="grid">{"".join(cards)}</div>'


def _note() -> str:
    told = _both("No line begins with a speaker, as #Person1#: or A: does, so each was read as a turn.")
    return f'<p class="note">{told}</p>'


def _waiting(name: str) -> str:
    waiting = _both("summarising …")
    return f'<article class="card waiting"><h2>{_shown_name(name)}</h2><p class="summary">{waiting}</p></article>'


def card(summaries: Summaries) -> str:
    """A model's summary of one dialogue, as HTML."""
    (row,) = summaries.predictions
    return (
        f'<article class="card" data-model="{summaries.model}"><h2>{_shown_name(summaries.model)}</h2>'
        f'<p class="summary">{_with_tags(row.text)}</p>{_facts(summaries, row)}{_others(row)}</article>'
    )


def _facts(summaries: Summaries, row: Prediction) -> str:
    faults = [f'<li class="fault">{_both(FAULTS[fault])}</li>' for fault in row.faults or ()]
    told = _both("the dialogue is long: its middle was left out")
    shortened = [f"<li>{told}</li>"] if summaries.shortened else []
    likely = [f"<li>{_likely(row.candidates[0])}</li>"] if row.candidates else []
    return f'<ul class="facts">{"".join([*faults, *shortened, *likely])}</ul>'


def _likely(candidate: Candidate) -> str:
    value = f"{candidate.log_probability:.2f}".replace("-", "−")
    return _both("log probability per token: {value}", value=value)


def _others(row: Prediction) -> str:
    """The other candidates, folded up."""
    others = [candidate for candidate in row.candidates[1:] if candidate.text]
    if not others:
        return ""
    items = "".join(f"<li>{_with_tags(other.text)} <small>{_likely(other)}</small></li>" for other in others)
    told = _both("other candidates: {count}", count=len(others))
    return f"<details><summary>{told}</summary><ol>{items}</ol></details>"


def _shown_name(name: str) -> str:
    return _both("ensemble") if name == ENSEMBLE else name


def _with_tags(text: str) -> str:
    """The text as HTML, its tags as coloured labels; what is copied from the page is the text itself."""
    return WORD_WITH_TAG.sub(_word, html.escape(text, quote=False))


def _word(word: re.Match[str]) -> str:
    """A tag and the particle after it stay on one line."""
    return f'<span class="word">{TAG.sub(_label, word[0])}</span>'


def _label(tag: re.Match[str]) -> str:
    return f'<span class="tag {colour(tag[0])}"><i>#</i>{tag[0][1:-1]}<i>#</i></span>'
