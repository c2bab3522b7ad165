"""What the documentation says is so: figures, examples, links and pictures."""

import doctest
import json
import re
import runpy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from experiments.analysis import comparisons
from experiments.benchmarks import compiling
from experiments.benchmarks.layers import CONTESTANTS
from experiments.studies import plans, store
from experiments.studies.cells import all_cells, cell_of, choose_strengths

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS.parent / "results"
ARMS = ("none", "dropout", "gaussian", "water", "aphex")


def mean_of(runs: list[dict], key: str) -> float:
    """The mean over runs, of curves of their last values."""
    return float(np.mean([np.ravel(run[key])[-1] for run in runs]))


@pytest.mark.parametrize("arm", ARMS)
def test_fidelity_is_as_the_table_says_and_within_its_bounds(arm):
    ours = json.loads((DOCS / f"fidelity/{arm}.json").read_text())["runs"]
    peer = json.loads((DOCS / "fidelity/peer.json").read_text())
    peer = [run for run in peer if run["reg"] == arm]
    assert len(ours) >= 4 and len(peer) >= 2
    assert abs(mean_of(ours, "train_loss") - mean_of(peer, "losses")) < 0.02
    assert abs(mean_of(ours, "accuracy") - mean_of(peer, "accuracy")) < 1.5
    accuracies = [run["accuracy"] for run in ours]
    cells = [arm]
    for epoch in (0, -1):
        cells.append(f"{np.mean([run['train_loss'][epoch] for run in ours]):.3f}")
        cells.append(" ".join(f"{run['losses'][epoch]:.3f}" for run in peer))
    cells.append(f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}")
    cells.append(" ".join(f"{run['accuracy']:.2f}" for run in peer))
    assert f"| {' | '.join(cells)} |" in (DOCS / "fidelity.md").read_text()


# The pages


README = DOCS.parent / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
ALL_PAGES = [README, *sorted(DOCS.rglob("*.md"))]


def prose(page: Path) -> str:
    """A page without its blocks of code, where `banks[0](key)` is no link."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page):
    failures, examples = doctest.testfile(
        str(page), module_relative=False, encoding="utf-8"
    )
    assert failures == 0
    assert (examples > 0) == (">>>" in page.read_text("utf-8"))


@pytest.mark.parametrize("name", ["guide", "migration", "which_noise"])
def test_every_block_of_python_is_an_example(name):
    blocks = re.findall(r"^```python\n(...)", (DOCS / f"{name}.md").read_text(), re.M)
    assert blocks and set(blocks) == {">>>"}


@pytest.mark.parametrize(
    "page", ALL_PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}"
)
def test_links_and_pictures_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    inside = [target for target in targets if not target.startswith("https://")]
    assert inside
    for target in inside:
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


# Performance

LAYERS = json.loads((DOCS / "performance/layer_cpu.json").read_text())


def table_of(page: str, mark: str) -> list[str]:
    """The lines that follow a mark on the page about performance."""
    return page.partition(f"{mark} -->\n")[2].partition("\n<!--")[0].splitlines()


def markdown(lines: list[list[str]], texts: tuple[int, ...] = (0,)) -> list[str]:
    header, *rows = lines
    rule = ["---" if place in texts else "---:" for place in range(len(header))]
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]


def test_performance_states_what_was_measured():
    """Microseconds, and in brackets times Dropout and times a copy."""

    def maps(case) -> str:
        shape = "x".join(map(str, case["shape"]))
        return f"{case['num_seeds']} of {shape}" if case["num_seeds"] > 1 else shape

    def cell(row) -> str:
        ratios = f"{row['to_dropout'][1]:.2f}, {row['to_copy'][1]:.1f}"
        return f"{row['microseconds']:,.0f} ({ratios})"

    lines = [["", *map(maps, LAYERS["cases"])]]
    for layers in zip(*(case["layers"] for case in LAYERS["cases"]), strict=True):
        lines.append([layers[0]["layer"], *map(cell, layers)])
    page = (DOCS / "performance.md").read_text("utf-8")
    assert table_of(page, "layer_cpu.json") == markdown(lines, range(len(lines[0])))
    assert f"median of {LAYERS['rounds']} rounds" in page
    assert f"JAX {LAYERS['environment']['jax']}" in page
    assert "dirty" not in LAYERS["environment"]["commit"]


ENSEMBLE = json.loads((DOCS / "performance/ensemble_cpu.json").read_text())


def test_performance_states_how_fast_ensembles_were():
    """One line for each contestant at each number of seeds."""
    lines = [["seeds", "", "images/s", "of ours", "s a run", "GiB", "of products"]]
    for case in ENSEMBLE["cases"]:
        for row in case["contestants"]:
            low, median, high = row["images_per_second"]
            lines.append(
                [
                    f"{case['num_seeds']}",
                    row["contestant"],
                    f"{median:,.0f} ({low:,.0f} to {high:,.0f})",
                    f"{row['to_ours'][1]:.2f}",
                    f"{row['seconds_per_run']:,.0f}",
                    f"{row['peak_bytes'] / 2**30:.1f}",
                    f"{row['of_matmul']:.0%}",
                ]
            )
    page = (DOCS / "performance.md").read_text("utf-8")
    assert table_of(page, "ensemble_cpu.json") == markdown(lines, (1,))
    environment = ENSEMBLE["environment"]
    assert "dirty" not in environment["commit"]
    assert environment["commit"][:7] in page
    assert f"JAX {environment['jax']}, PyTorch {environment['torch']}" in page
    first = {name: each["seconds"] for name, each in ENSEMBLE["first_step"].items()}
    words = " ".join(page.split())
    assert f"took {first['cold']:.0f} s with empty caches" in words
    assert f"and {first['warm']:.0f} s with what that run had kept" in words


def test_performance_states_how_fast_convolutions_were():
    module = runpy.run_path(str(DOCS / "make_convolutions.py"))
    result = json.loads((DOCS / "performance/convolutions_cpu.json").read_text())
    page = (DOCS / "performance.md").read_text("utf-8")
    assert table_of(page, "make_convolutions.py") == module["make_table"](
        result["cases"]
    )
    assert "dirty" not in result["environment"]["commit"]
    assert f"Medians of {result['rounds']} turns" in page


def read_compiled(name: str) -> dict:
    return json.loads((DOCS / f"performance/compile_{name}.json").read_text())


@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_performance_states_what_compilers_make_of_programs(target):
    before, after = read_compiled(f"{target}_before"), read_compiled(target)
    header, *old = compiling.list_programs(before["cases"])
    _, *new = compiling.list_programs(after["cases"])
    lines = [header, *([f"before: {row[0]}", *row[1:]] for row in old), *new]
    page = (DOCS / "performance.md").read_text("utf-8")
    programs = table_of(page, f"compile_{target}.json, programs")
    assert programs == markdown(lines, (0, 9))
    layers = table_of(page, f"compile_{target}.json, layers")
    assert layers == markdown(compiling.list_layers(after["cases"]))
    for record in (before, after):
        assert f"JAX {record['environment']['jax']}" in " ".join(page.split())
    assert "dirty" not in after["environment"]["commit"]


def test_performance_states_what_a_bank_is_of_dropout_on_accelerators():
    page = " ".join((DOCS / "performance.md").read_text("utf-8").split())
    banks = [name for name in CONTESTANTS if "bank" in name or "recording" in name]
    for target, title in (("h100", "an H100"), ("v5e", "a TPU v5e")):
        costs = {
            (tuple(case["shape"]), case["layer"]): case["cost_seconds"]
            for case in read_compiled(target)["cases"]
            if case["program"] == "layers"
        }
        ratios = [
            cost / costs[shape, "nnx.Dropout"]
            for (shape, layer), cost in costs.items()
            if layer in banks
        ]
        assert len(ratios) == 5 * 3
        said = f"{min(ratios):.2f} to {max(ratios):.2f} of it on {title}"
        assert said in page, said


BANKS = ("rows, bank", "plane, bank", "rows, bfloat16 bank", "recording, laid out")


def layer_ratios(name: str, ratio: str) -> dict[str, list[float]]:
    """Of each case the ratios of a layer, one for each of three runs."""
    ratios: dict[str, list[float]] = {}
    for path in sorted((DOCS / "performance").glob("layer_cpu*.json")):
        result = json.loads(path.read_text())
        assert "dirty" not in result["environment"]["commit"]
        for case in result["cases"]:
            (row,) = (row for row in case["layers"] if row["layer"] == name)
            where = f"{case['num_seeds']} of {'x'.join(map(str, case['shape']))}"
            ratios.setdefault(where, []).append(row[ratio][1])
    assert {len(values) for values in ratios.values()} == {3}
    return ratios


@pytest.mark.parametrize("name", BANKS)
def test_a_bank_costs_a_fifth_of_dropout_and_two_and_a_half_copies(name):
    for ratio, bound in (("to_dropout", 0.2), ("to_copy", 2.5)):
        for where, values in layer_ratios(name, ratio).items():
            # The first is the run of the table.
            assert values[0] <= bound and np.median(values) <= bound, where


def test_performance_states_what_the_closest_case_took():
    floats = layer_ratios("rows, bank", "to_dropout")["1 of 64x8x8x32"]
    floats += layer_ratios("plane, bank", "to_dropout")["1 of 64x8x8x32"]
    narrow = layer_ratios("rows, bfloat16 bank", "to_dropout")["1 of 64x8x8x32"]
    page = " ".join((DOCS / "performance.md").read_text("utf-8").split())
    assert f"from {min(floats):.2f} to {max(floats):.2f} of Dropout" in page
    assert f"from {min(narrow):.2f} to {max(narrow):.2f} with one in bfloat16" in page


# The noises


class Row(NamedTuple):
    """A row of the table of noises."""

    picture: str
    code: str
    promised: str
    numbers: tuple[float, ...]


def rows_of(page: Path) -> dict[str, Row]:
    table = page.read_text("utf-8").partition("<!-- table: ")[2].partition("<!--")[0]
    rows = {}
    for line in re.findall(r"^\| \[.*$", table, re.MULTILINE):
        noise, code, promised, *numbers = line.strip("| ").split(" | ")
        name, picture = re.fullmatch(r"\[(\w+)\]\((.+)\)", noise).groups()
        numbers = tuple(float(number) if number.strip() else -9 for number in numbers)
        rows[name] = Row(picture, code, promised.strip(), numbers)
    return rows


def files_under(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file of a folder, with when it was written and how long it is."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    """The page and the pictures, made anew beside a copy of the page."""
    folder = tmp_path_factory.mktemp("docs")
    text = (DOCS / "noises.md").read_text("utf-8")
    # Without the rows, so that those compared below are new.
    text = re.sub(r"^\| \[.*\n", "", text, flags=re.MULTILINE)
    (folder / "noises.md").write_text(text, "utf-8")
    before = files_under(DOCS)
    runpy.run_path(str(DOCS / "make_noises.py"))["main"](folder)
    assert files_under(DOCS) == before
    return folder


@pytest.mark.slow
def test_noises_table_holds_what_the_script_measures(remade):
    stated, measured = rows_of(DOCS / "noises.md"), rows_of(remade / "noises.md")
    assert list(stated) == list(measured)
    assert len(stated) >= 11
    for name, row in measured.items():
        assert stated[name][:3] == row[:3]
        assert len(row.numbers) == 6
        # Two digits are stated, and the second may round the other way.
        np.testing.assert_allclose(stated[name].numbers, row.numbers, atol=0.011)
    # Around the table the page stays as it was.
    old, new = ((each / "noises.md").read_text("utf-8") for each in (DOCS, remade))
    start, end = "<!-- table: ", "<!-- end of the table"
    assert old.partition(start)[0] == new.partition(start)[0] != ""
    assert old.partition(end)[2] == new.partition(end)[2]


def test_noises_obey_their_laws():
    rows = rows_of(DOCS / "noises.md").values()
    laws = [row for row in rows if row.promised]
    assert {row.promised for row in laws} == {"-1", "0", "1", "2"}
    for row in laws:
        fitted, std, kurtosis, *_ = row.numbers
        # Three standard errors of the worst of them, and half a digit.
        assert abs(fitted - float(row.promised)) < 0.015
        assert abs(std - 1) < 0.02
        assert abs(kurtosis) < 0.05


@pytest.mark.slow
def test_noise_pictures_are_those_of_the_table(remade):
    in_table = {row.picture for row in rows_of(DOCS / "noises.md").values()}
    shown = re.findall(
        r"^!\[.+\]\((.+)\)$", (DOCS / "noises.md").read_text("utf-8"), re.M
    )
    there = {f"images/{path.name}" for path in DOCS.glob("images/noise_*")}
    made = {str(path.relative_to(remade).as_posix()) for path in remade.glob("*/*")}
    assert in_table == there == made
    assert sorted(shown) == sorted(in_table)
    heads = set()
    for folder in (DOCS, remade):
        for path in folder.glob("images/noise_*.png"):
            data = path.read_bytes()
            heads.add(data[:24])  # the signature, and the width and height
            assert len(data) < 60_000
    assert len(heads) == 1 and heads.pop().startswith(b"\x89PNG")


def test_the_picture_of_the_readme_is_drawn_from_records(tmp_path):
    runpy.run_path(str(DOCS / "make_readme.py"))["main"](tmp_path)
    drawn, shown = (f / "readme.png" for f in (tmp_path, DOCS / "images"))
    # The signature, and the width and height.
    assert drawn.read_bytes()[:24] == shown.read_bytes()[:24]


def test_make_noises_refuses_a_page_without_the_marks(tmp_path):
    (tmp_path / "noises.md").write_text("# The noises\n")
    with pytest.raises(ValueError, match="noises.md lacks the lines <!-- table"):
        runpy.run_path(str(DOCS / "make_noises.py"))["main"](tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["noises.md"]


def test_the_tables_of_the_results_follow_from_the_records(tmp_path):
    page = (DOCS / "results.md").read_text("utf-8")
    (tmp_path / "results.md").write_text(page, "utf-8")
    runpy.run_path(str(DOCS / "make_results.py"))["main"](tmp_path)
    assert (tmp_path / "results.md").read_text("utf-8") == page
    studies = {path.parent.name for path in RESULTS.glob("*/study.json")}
    drawn = {path.stem for path in tmp_path.glob("images/*.svg")}
    assert drawn == {path.stem for path in DOCS.glob("images/study_*.svg")}
    for name in studies:
        assert any(picture.startswith(f"study_{name}") for picture in drawn)
    assert drawn == set(re.findall(r"images/(study_\w+)\.svg", page))


@pytest.mark.parametrize(
    "name, start, pairs",
    [
        ("claim", "**Water beats dropout**", ["water dropout", "none dropout"]),
        ("controls", "**Here noise helps**", ["plane_2 none", "gaussian none"]),
        ("controls", "So does dropout", ["dropout none"]),
        ("controls", "**No colour", ["plane_1 gaussian", "plane_2 gaussian"]),
        ("controls", "pink along rows", ["water gaussian", "water dropout"]),
        ("controls", "Drum and bass", ["drums none", "drums_phases drums_shuffled"]),
        (
            "shared",
            "**The lead is not",
            ["shared_pink dropout", "shared_pink gaussian"],
        ),
        ("shared", "**Sharing helps", ["shared_pink pink", "shared_white gaussian"]),
        (
            "shared_robustness",
            "**Confirmed: noise",
            ["shared_gaussian gaussian", "shared_pink pink"],
        ),
        (
            "shared_robustness",
            "(0.7 to 2.0); than dropout",
            [
                *("shared_pink dropout", "shared_gaussian none"),
                *("shared_pink none", "shared_gaussian dropout"),
            ],
        ),
        (
            "shared_robustness",
            "The structure is not the colour",
            ["shared_pink shared_gaussian"],
        ),
        (
            "shared_robustness",
            "**Spatial dropout is as",
            ["shared_gaussian spatial_dropout"],
        ),
    ],
)
def test_the_words_about_the_results_have_the_numbers_of_the_records(
    name, start, pairs
):
    page = " ".join((DOCS / "results.md").read_text("utf-8").split())
    _, found, said = page.partition(start)
    assert found
    means = {
        f"{each.arm} {each.baseline}": each.result.mean_difference
        for each in comparisons.compare(store.read([RESULTS / name]))
    }
    for pair in pairs:
        assert f"{abs(means[pair]):.1f}" in said[:260]


def test_nearly_every_noise_was_best_at_the_strongest():
    study = store.read([RESULTS / "controls"])
    chosen = choose_strengths(study.plan, study.tuning)
    in_features = [
        name
        for name, arm in study.plan.arms.items()
        if name in chosen and "dropout" not in arm.reg and arm.where == "all"
    ]
    strongest = [name for name in in_features if chosen[name] == 1]
    page = (DOCS / "results.md").read_text("utf-8")
    assert (
        f"of {len(in_features)} arms with noise in the features, {len(strongest)}"
        in (" ".join(page.split()))
    )


def test_the_readme_says_what_came_of_the_claim():
    study = store.read([RESULTS / "claim"])
    found = {(each.arm, each.baseline): each for each in comparisons.compare(study)}
    water, none = found["water", "dropout"], found["none", "dropout"]
    assert (water.decision, none.decision) == ("wins", "wins")
    assert found["water", "none"].decision == "undecided"
    readme = " ".join((DOCS.parent / "README.md").read_text("utf-8").split())
    assert (
        f"over {len(study.plan.seeds)} paired seeds, water beats dropout by" in readme
    )
    assert f"dropout by {water.result.mean_difference:.1f} points of accuracy" in readme
    assert f"no regularizer at all, by {none.result.mean_difference:.1f}:" in readme


def test_the_readme_says_of_sharing_what_was_decided():
    study = store.read([RESULTS / "shared_robustness"])
    found = {(each.arm, each.baseline): each for each in comparisons.compare(study)}
    decisions = {
        baseline: found["shared_gaussian", baseline].decision
        for baseline in ("gaussian", "dropout", "none", "spatial_dropout")
    }
    assert [*decisions.values()] == ["wins", "wins", "wins", "undecided"]
    assert found["shared_pink", "shared_gaussian"].decision == "undecided"
    unshared, dropout = (
        -found["shared_gaussian", baseline].result.mean_difference
        for baseline in ("gaussian", "dropout")
    )
    clean = {row["arm"]: row["accuracy_mean"] for row in comparisons.summarize(study)}
    for other in ("gaussian", "dropout"):
        assert abs(clean["shared_gaussian"] - clean[other]) < 1
    readme = " ".join((DOCS.parent / "README.md").read_text("utf-8").split())
    assert f"by {unshared:.1f} points against independent noise" in readme
    assert f"and by {dropout:.1f} against dropout, at similar clean" in readme


def test_the_words_about_where_it_helps_follow_from_the_records():
    study = store.read([RESULTS / "regimes_cpu"])
    regions = comparisons.regions(comparisons.compare(study))
    overfit, *others = study.plan.regimes
    assert all(bool(region.wins) == (region.regime == overfit) for region in regions)
    page = " ".join((DOCS / "results.md").read_text("utf-8").split())
    num_wins = sum(len(region.wins) for region in regions)
    assert f"All {num_wins} wins are in the first regime" in page
    *rest, best = sorted(
        (r.best.result.mean_difference, r.arm) for r in regions if r.regime == overfit
    )
    assert best[1] == "plane_shared" and f"by {best[0]:.1f} points (shared" in page
    assert f"{rest[0][0]:.1f} to {rest[-1][0]:.1f} (the others)" in page
    readme = " ".join((DOCS.parent / "README.md").read_text("utf-8").split())
    assert f"by {rest[0][0]:.1f} to {best[0]:.1f} points over none" in readme
    assert f"{len(study.records):,} networks" in readme
    strengths = {
        arm: sorted({s for r in regions if r.arm == arm for s in r.wins})
        for arm, _ in study.plan.comparisons
    }
    assert strengths == {
        "dropout": [0.05, 0.1, 0.2],
        "gaussian": [0.3, 1],
        "gaussian_times": [0.1, 0.3],
        "rows": [0.3, 1],
        "plane_shared": [0.3, 1],
    }
    strongest = {"dropout": 0.5}
    assert all(strongest.get(r.arm, 3) in r.loses for r in regions)
    added = [r for r in regions if r.arm in ("gaussian", "rows", "plane_shared")]
    assert all((1 in r.loses) == (r.regime != overfit) for r in added)
    accuracies = {
        (row["regime"], row["arm"]): row["accuracy_mean"]
        for row in comparisons.summarize(study)
        if row["arm"] == "none"
    }
    plain, augmented = (
        accuracies[regime, "none"] for regime in (overfit, "images_1000_augmented")
    )
    assert f"from {plain:.1f} to {augmented:.1f} %" in page


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in RESULTS.glob("*/study.json"))
)
def test_results_are_of_plans_as_they_were_written_down(name):
    study = store.read([RESULTS / name])
    assert study.plan == plans.load(name)
    done = set(map(cell_of, study.records))
    chosen = choose_strengths(study.plan, study.tuning)
    assert done == {
        cell
        for cell in all_cells(study.plan)
        if cell.strength == chosen.get(cell.arm, cell.strength)
    }
    commits = {record["environment"]["commit"] for record in study.records}
    assert not any(commit.endswith("-dirty") for commit in commits)


def test_every_promise_of_reliability_has_a_test():
    page = (DOCS / "reliability.md").read_text("utf-8")
    tables = [part for part in page.split("\n\n") if part.startswith("| fault")]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(test_\w+)::(test_\w+)`", row)
        assert named, row
        for module, test in named:
            source = (Path(__file__).parent / f"{module}.py").read_text("utf-8")
            assert f"def {test}(" in source, test
