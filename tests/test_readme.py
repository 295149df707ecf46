"""README's table of verdicts is what `framebound claims --readme` writes."""

from experiments.report import table
from experiments.store import ROOT


def test_table_of_verdicts_is_up_to_date():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    audit = table.read_audit(ROOT / "figures" / "audit.json")
    assert table.readme_with_table(text, audit) == text, "README.md is out of date; run: framebound claims --readme"


def test_table_replaces_what_stood_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nwhat stood here\n{table.END}\nafter\n")
    assert table.update_readme(readme, tmp_path / "none.json")
    text = readme.read_text()
    assert (
        text.startswith("before\n")
        and text.endswith("\nafter\n")
        and "what stood here" not in text
        and "C1.hessian" in text
    )
    assert not table.update_readme(readme, tmp_path / "none.json")
