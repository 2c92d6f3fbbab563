"""How a report looks: fpdf2 with a title, headings, tables and page numbers.

The fonts that every PDF reader has know the letters of Western Europe and little else, so what they
lack becomes a "?". With a font file of your own, `pdf.add_font("mine", fname=...)`, all is there that
this font has.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from unicodedata import normalize

from fpdf import FPDF

__all__ = ["Report"]

FONT = "Helvetica"
ENCODING = "cp1252"


class Report(FPDF):
    """A PDF that begins with its title. `lacking`: whether a character had to become a "?"."""

    def __init__(self, title: str, made_by: str) -> None:
        super().__init__()
        self.lacking = False
        self.core_fonts_encoding = ENCODING
        self.alias_nb_pages("")  # a "{nb}" in somebody's data is not the number of pages
        self.set_title(self._printable(title))
        self.add_page()
        self.text_line(title, size=20)
        self.text_line(f"Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by {made_by}")

    def footer(self) -> None:
        """What fpdf2 puts at the bottom of each page."""
        self.set_y(-15)
        self.set_font(FONT, size=8)
        self.cell(0, 10, f"Page {self.page_no()}", align="C")

    def heading(self, text: str) -> None:
        """A line above a table."""
        self.ln(6)
        self.text_line(text, size=14)
        self.ln(2)

    def text_line(self, text: str, *, size: int = 9) -> None:
        """A line of its own, or more if it is long."""
        self.set_font(FONT, size=size)
        self.multi_cell(0, size / 2, self._printable(text), align="L", new_x="LMARGIN", new_y="NEXT")

    def table_of(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        widths: Sequence[int] | None = None,
        right: Collection[int] = (),
    ) -> None:
        """A table with its headings on every page. `right`: the columns that are aligned to the right."""
        if not columns:
            self.text_line("There is nothing in it.")
            return
        self.set_font(FONT, size=8)
        align = tuple("RIGHT" if index in right else "LEFT" for index in range(len(columns)))
        with self.table(line_height=4.5, padding=1, col_widths=widths, text_align=align) as table:
            for row in (columns, *rows):
                table.row([self._printable(cell) for cell in row])

    def _printable(self, text: str) -> str:
        text = normalize("NFC", text)  # é in one piece: the font has no accents to put on letters
        text = "".join(character if character.isprintable() else " " for character in text)
        known = text.encode(ENCODING, "replace").decode(ENCODING)
        self.lacking = self.lacking or known != text
        return known
