"""Pages read plainly: at most 14 words a sentence on average, and at most 6 % of the sentences over 30."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATED = {ROOT / "docs/log.md"}  # a record of what was measured; it is not rewritten
PAGES = {ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", *(ROOT / "docs").rglob("*.md")}
PAGES = sorted(page for page in PAGES - DATED if not {"_build", "_examples"} & set(page.parts))
ITEM = re.compile(r"\s*([-*]|\d+\.)\s+")


def paragraphs(text: str) -> list[str]:
    """Return paragraphs and list items, without code blocks, tables and headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    found = [""]
    for line in text.splitlines():
        code = line.startswith("    ") and not found[-1]
        if not line.strip() or line.startswith(("#", "|")) or code:
            found.append("")
        elif ITEM.match(line):
            found.append(ITEM.sub("", line, count=1))
        else:
            found[-1] += f" {line.strip()}"
    return found


def sentence_lengths(text: str) -> list[int]:
    """Return the words of each sentence; a colon ends one too."""
    sentences = [part for text in paragraphs(text) for part in re.split(r"(?<=[.!?:])[*_`)\"]*\s+", text)]
    return [len(sentence.split()) for sentence in sentences if re.search(r"\w", sentence)]


def test_sentences_end_at_full_stops_colons_and_list_items():
    text = "# A title of words\n\nOne two. Three: four\nfive\n- six\n  seven\n\n| a | b |\n\n```\ncode here\n```\n"
    assert sentence_lengths(text) == [2, 1, 2, 2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_reads_plainly(page):
    lengths = sentence_lengths(page.read_text(encoding="utf-8"))
    if page.name not in ("index.md", "changelog.md"):  # lists of links
        assert lengths
    assert sum(lengths) <= 14 * len(lengths), "words a sentence"
    assert sum(length > 30 for length in lengths) <= 0.06 * len(lengths), "sentences over 30 words"
