"""What runs pages: a page that lies is found out."""

from __future__ import annotations

from pathlib import Path

import pytest

import pages

TRUE = """# A page

```python
print(2 / 3)
```

```text
0.6667
```

```console
$ pellucid tokenize "Once" --json > ids.json
$ head -c 1 ids.json; echo
{
$ pellucid tokenize "Once" -m nowhere
pellucid tokenize: there is no folder 'nowhere'
```
"""


def test_a_page_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(TRUE)
    runs = pages.run(page)
    assert "0.666666" in runs and "\n{\n$" in runs and "  next:" in runs
    page.write_text(runs)
    pages.compare(runs, pages.run(page))
    page.write_text("```python\nlogging = __import__('logging').getLogger('pellucid').warning('cut')\n```\n")
    assert pages.run(page).endswith("```\n\n```text\ncut\n```\n")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("3 texts", "4 texts"), ("0.50", "0.60"), ("good", "bad"), ("a\nb", "a"), ("12.5", "12.5 13.5")],
)
def test_what_differs(shown: str, printed: str) -> None:
    with pytest.raises(AssertionError, match="line"):
        pages.compare(shown, printed)


def test_what_does_not_matter() -> None:
    pages.compare("took 3.1 s,  score 0.501", "took 12 s, score 0.503")


def test_an_error_that_is_no_answer_fails_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError):
        pages.run(page)
