"""card.html: all on one page, nothing from elsewhere, nothing of it run."""

from html.parser import HTMLParser

import numpy as np
import pytest

from deeptrain.metrics.confusion import Confusion
from deeptrain.report.card import CardData, WorstClass, worst_classes, write_card
from deeptrain.report.image_grid import save

RESULT = {
    "status": "stopped_early",
    "reason": "accuracy/val no better for 10 validations",
    "monitor": "accuracy/val",
    "best": 0.9842,
    "best_epoch": 1,
    "epochs": 2,
    "steps": 200,
    "train_seconds": 200.0,
    "images_per_second": 12340.4,
    "parameters": 272474,
    "versions": {"torch": "2.15.0"},
}
ROWS = [
    {"epoch": 1, "step": 100, "accuracy/train_clean": 0.9992, "accuracy/val": 0.9842, "loss/val": 0.0512},
    {"epoch": 2, "step": 200, "accuracy/train_clean": 1.0, "accuracy/val": 0.9, "loss/val": 0.3},
]
EVIL = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Collects the tags, the addresses they point to, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text, self.open = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} is not what was open"

    def handle_data(self, data):
        self.text += data


def test_an_accuracy_stands_beside_the_share_of_the_largest_class(tmp_path):
    facts = CardData(title="x", result=RESULT, largest_class=0.62)
    assert "best accuracy on val, epoch 1; largest class 62.00%" in page(tmp_path, facts).text
    others = [{"monitor": "loss/val", "best": 0.3}, {"monitor": "accuracy/val_average"}]
    for other in others:
        assert (
            "largest class" not in page(tmp_path, CardData(title="x", result=RESULT | other, largest_class=0.62)).text
        )


def page(folder, facts):
    return Page(write_card(folder, facts).read_text("utf-8"))


@pytest.fixture
def facts():
    return CardData(
        title="model=resnet aug=mixup",
        result=RESULT,
        rows=ROWS,
        changed=["model=resnet", "aug=mixup"],
        data="digits: 1,347 train, 450 val",
        worst=[WorstClass("cat", 100, 0.81, "dog", 0.13)],
        commands=[("Repeat this run", "python train.py model=resnet aug=mixup")],
    )


def test_the_page_says_what_happened(tmp_path, facts):
    text = page(tmp_path, facts).text
    for words in (
        "98.42%",
        "best accuracy on val, epoch 1",
        "+1.50",  # the gap of the best epoch, not of the last
        "Stopped early: accuracy/val no better for 10 validations",
        "Metrics at epoch 1",
        "0.0512",
        "3m20s",
        "272,474",
        "aug=mixup",
        "81.00%",
        "dog (13.00%)",
        "python train.py model=resnet aug=mixup",
        "2.15.0",
    ):
        assert words in text


def test_the_page_holds_its_pictures_and_needs_nothing_else(tmp_path, facts):
    for name in ("curves.png", "samples.png", "confusion.png"):
        save(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    found = page(tmp_path, facts)
    assert len(found.addresses) == 3
    assert all(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert not {"script", "link", "iframe", "object", "form"} & set(found.tags)
    text = (tmp_path / "card.html").read_text("utf-8")
    assert "http://" not in text and "https://" not in text and "@import" not in text and "url(" not in text
    assert found.open == []


def test_whatever_is_shown_is_escaped(tmp_path):
    found = page(
        tmp_path,
        CardData(
            title=EVIL,
            result={**RESULT, "reason": EVIL, "versions": {EVIL: EVIL}},
            changed=[EVIL],
            data=EVIL,
            model=EVIL,
            worst=[WorstClass(EVIL, 1, 0.0, EVIL, 1.0)],
            split=EVIL,
            commands=[(EVIL, EVIL)],
        ),
    )
    assert "script" not in found.tags
    assert found.text.count(EVIL) >= 9


def test_a_run_that_failed_at_once_still_has_a_page(tmp_path):
    found = page(tmp_path, CardData(title="x", result={"status": "failed", "reason": "no data"}, changed=[]))
    assert "Failed: no data" in found.text and "all settings are the defaults" in found.text
    assert "Metrics" not in found.text and "img" not in found.tags


def test_a_monitored_loss_is_shown_as_a_loss(tmp_path):
    result = {**RESULT, "monitor": "loss/val", "best": 0.05123}
    assert "0.0512" in page(tmp_path, CardData(title="x", result=result)).text


def counted(matrix):
    true, predicted = np.nonzero(matrix)
    return Confusion(true, predicted, np.asarray(matrix)[true, predicted], len(matrix))


def test_worst_classes_are_the_least_accurate_with_what_they_are_taken_for():
    counts = counted(np.array([[9, 1, 0, 0], [3, 5, 2, 0], [0, 0, 4, 0], [0, 0, 0, 0]]))
    worst = worst_classes(counts, ["a", "b", "c", "empty"])
    assert worst == [WorstClass("b", 10, 0.5, "a", 0.3), WorstClass("a", 10, 0.9, "b", 0.1)]
    assert worst_classes(counts, ["a", "b", "c", "empty"], limit=1) == worst[:1]
