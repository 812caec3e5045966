"""scripts/signs.py puts the signs of runs beside their scores."""

import json
import runpy
import shutil
from pathlib import Path

main = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "signs.py"))["main"]


def test_a_line_for_each_run_and_seed(whole, tmp_path, capsys):
    for place in ("run", "seeds/seed0", "seeds/seed3"):
        (tmp_path / place).mkdir(parents=True)
        for name in ("metrics.json", "metrics.jsonl"):
            shutil.copy(whole.folder / name, tmp_path / place / name)
    (tmp_path / "seeds" / "seed9").mkdir()  # not finished
    assert main([str(tmp_path / "run"), str(tmp_path / "seeds")]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert "| at_floor, begin → end |" in header
    assert [row.split(" | ")[0] for row in rows] == [
        f"| {tmp_path}/{place}" for place in ("run", "seeds/seed0", "seeds/seed3")
    ]
    result = json.loads((whole.folder / "metrics.json").read_text())
    cells = rows[0].strip("| ").split(" | ")
    assert len(cells) == header.strip("| ").count(" | ") + 1
    assert cells[2] == f"{100 * result['adapted']['miou']:.1f}"
    assert cells[3] == f"{100 * (result['adapted']['miou'] - result['baseline']['miou']):+.1f}"
    assert all("→" in cell for cell in cells[8:])


def test_a_folder_without_a_result_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert f"error: cannot read {tmp_path}/metrics.json" in capsys.readouterr().err
