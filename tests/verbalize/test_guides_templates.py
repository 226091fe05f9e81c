"""The guide's table of templates: each one, described by the code, with the text it makes of one fixed history."""

from pathlib import Path

from verbalizers_frames import event, frame

from verbalize.verbalizers.templates import TEMPLATES, Template, TemplateVerbalizer

GUIDE = Path(__file__).parents[2] / "experiments" / "guides" / "templates.md"
BEGIN, END = "<!-- templates -->\n", "<!-- /templates -->"
DAY = 24 * 60
HISTORY = [
    event("Heat", 1995, ["Action", "Crime"], rating=4.0),
    event("Alien", 1979, ["Horror"], event_type="play", duration_s=7020.0, completion=1.0, minutes=25),
    event("Dark: Secrets", 2017, ["Drama"], event_type="play", duration_s=3060.0, series="Dark", minutes=DAY),
    event("Dark: Lies", 2017, ["Drama"], event_type="play", duration_s=2700.0, series="Dark", minutes=DAY + 30),
    event("Big", rating=2.5, minutes=2 * DAY),
    event("Amélie", 2001, ["Comedy", "Romance"], rating=5.0, minutes=3 * DAY),
]


def row(template: Template) -> str:
    """One line of the table: name, what it says, the fields it may show, its text."""
    (text,) = TemplateVerbalizer(template.name).verbalize(frame(HISTORY))
    cells = [f"`{template.name}`", template.description, ", ".join(sorted(template.fields)), text]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"


def table() -> str:
    """The whole table, as it stands in the guide."""
    head = ["| template | what it says | fields | of this history |", "|---|---|---|---|"]
    return "\n".join([*head, *(row(template) for template in TEMPLATES.values())]) + "\n"


def test_the_guide_shows_what_every_template_writes() -> None:
    _, _, rest = GUIDE.read_text(encoding="utf-8").partition(BEGIN)
    shown, found, _ = rest.partition(END)
    assert found and shown == table(), f"{GUIDE.name} is out of date; its table is now:\n{table()}"


def test_the_fixed_history_shows_every_field_a_template_may_show() -> None:
    for name in set().union(*(template.fields for template in TEMPLATES.values())):
        assert any(one[name] not in (None, []) for one in HISTORY), name
