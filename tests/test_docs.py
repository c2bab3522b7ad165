"""What the documentation says is so: figures, examples, links and pictures."""

import doctest
import json
import re
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.analysis import comparisons
from experiments.benchmarks import compiling
from experiments.benchmarks.records import quartiles, write_record
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


def table_of(page: str, mark: str) -> list[str]:
    """The lines that follow a mark on the page about performance."""
    return page.partition(f"{mark} -->\n")[2].partition("\n<!--")[0].splitlines()


def markdown(lines: list[list[str]], texts: tuple[int, ...] = (0,)) -> list[str]:
    header, *rows = lines
    rule = ["---" if place in texts else "---:" for place in range(len(header))]
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]


@pytest.mark.parametrize(
    "name",
    [
        "layer_cpu",
        "ensemble_cpu",
        "ensemble_cpu_resnet20",
        "ensemble_cpu_resnet20_huge_pages",
        "ensemble_cpu_vit",
    ],
)
def test_performance_states_what_was_measured(name):
    record = json.loads((DOCS / f"performance/{name}.json").read_text())
    page = (DOCS / "performance.md").read_text("utf-8")
    _, _, *rows = table_of(page, f"{name}.json")
    assert len(rows) >= 8
    leaves = [x for x in jax.tree.leaves(record) if isinstance(x, int | float)]
    # As a number, a percentage or GiB.
    known = [x * unit for x in leaves for unit in (1, 100, 2**-30)]
    printed = {f"{x:,.{digits}f}" for x in known for digits in range(3)}
    assert set(re.findall(r"(?<=[| (])[\d,.]*\d\b", "".join(rows))) <= printed
    environment = record["environment"]
    assert f"JAX {environment['jax']}" in page
    assert "dirty" not in environment["commit"]


def test_a_script_writes_what_it_timed_and_its_table(tmp_path):
    (tmp_path / "performance").mkdir()
    page = tmp_path / "performance.md"
    page.write_text("<!-- table: docs/make_step.py -->\nold\n<!-- end of the table -->")
    times = quartiles([1, 2, 3, 4])
    write_record(str(tmp_path / "make_step.py"), ["new"], 4, milliseconds=times)
    assert table_of(page.read_text(), "make_step.py") == ["new"]
    record = json.loads((tmp_path / "performance/step_cpu.json").read_text())
    assert record["milliseconds"] == [1.75, 2.5, 3.25]
    assert record["rounds"] == 4
    assert {"commit", "jax"} <= record["environment"].keys()


def test_performance_states_how_fast_convolutions_were():
    module = runpy.run_path(str(DOCS / "make_convolutions.py"))
    result = json.loads((DOCS / "performance/convolutions_cpu.json").read_text())
    page = (DOCS / "performance.md").read_text("utf-8")
    assert table_of(page, "make_convolutions.py") == module["make_table"](
        result["cases"]
    )
    assert "dirty" not in result["environment"]["commit"]
    assert f"Medians of {result['rounds']} turns" in page


def test_performance_states_what_the_size_of_blocks_does():
    module = runpy.run_path(str(DOCS / "make_blocks.py"))
    result = json.loads((DOCS / "performance/blocks_cpu.json").read_text())
    page = (DOCS / "performance.md").read_text("utf-8")
    assert table_of(page, "make_blocks.py") == module["make_table"](result["cases"])
    assert "dirty" not in result["environment"]["commit"]
    assert f"commit {result['environment']['commit'][:7]}" in page
    assert f"medians of {result['rounds']} rounds" in page


def test_performance_states_what_the_programs_of_other_platforms_learn():
    module = runpy.run_path(str(DOCS / "make_platforms.py"))
    result = json.loads((DOCS / "performance/platforms_cpu.json").read_text())
    page = (DOCS / "performance.md").read_text("utf-8")
    assert table_of(page, "make_platforms.py") == module["make_table"](result["cases"])
    assert result["cases"].keys() == module["PLATFORMS"].keys()
    assert result["seeds"] == list(module["SEEDS"])
    assert f"CPU: {len(result['seeds'])} seeds under `vmap`" in page
    assert "dirty" not in result["environment"]["commit"]
    assert f"commit {result['environment']['commit'][:7]}" in page


def test_performance_states_what_variants_of_a_step_took():
    module = runpy.run_path(str(DOCS / "make_variants.py"))
    result = json.loads((DOCS / "performance/variants_cpu.json").read_text())
    page = (DOCS / "performance.md").read_text("utf-8")
    assert table_of(page, "make_variants.py") == module["make_table"](result["cases"])
    assert result["cases"].keys() == module["VARIANTS"].keys()
    assert "dirty" not in result["environment"]["commit"]
    assert f"commit {result['environment']['commit'][:7]}" in page
    assert f"of {result['rounds']} rounds of {module['NUM_STEPS']} steps" in page


def test_performance_states_where_the_time_of_a_step_goes():
    module = runpy.run_path(str(DOCS / "make_step.py"))
    result, convolutions = (
        json.loads((DOCS / f"performance/{name}_cpu.json").read_text())
        for name in ("step", "convolutions")
    )
    page = (DOCS / "performance.md").read_text("utf-8")
    table = module["make_table"](result["milliseconds"], convolutions)
    assert table_of(page, "make_step.py") == table
    assert "dirty" not in result["environment"]["commit"]
    assert f"medians of {result['rounds']} turns" in page


def read_compiled(name: str) -> dict:
    return json.loads((DOCS / f"performance/compile_{name}.json").read_text())


@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_performance_states_what_compilers_make_of_programs(target):
    before, after = read_compiled(f"{target}_before"), read_compiled(target)
    header, *old = compiling.list_programs(before["cases"])
    _, *new = compiling.list_programs(after["cases"])
    lines = [header, *([f"before: {row[0]}", *row[1:]] for row in old), *new]
    if target == "v5e":
        lines += compiling.list_programs(read_compiled("v5e_128")["cases"])[1:]
    page = (DOCS / "performance.md").read_text("utf-8")
    programs = table_of(page, f"compile_{target}.json, programs")
    assert programs == markdown(lines, (0, 9))
    layers = table_of(page, f"compile_{target}.json, layers")
    assert layers == markdown(compiling.list_layers(after["cases"]))
    for record in (before, after):
        assert f"JAX {record['environment']['jax']}" in " ".join(page.split())
    assert "dirty" not in after["environment"]["commit"]


@pytest.mark.parametrize("target", ["h100", "v5e"])
def test_performance_states_what_regularizers_add_to_a_step(target):
    result = read_compiled(f"{target}_regularizers")
    page = (DOCS / "performance.md").read_text("utf-8")
    table = table_of(page, f"compile_{target}_regularizers.json")
    assert table == markdown(compiling.list_regularizers(result["cases"]))
    assert "dirty" not in result["environment"]["commit"]
    assert f"commit {result['environment']['commit'][:7]}" in page


# The noises


@pytest.mark.slow
def test_the_noises_are_what_the_script_draws_and_measures(tmp_path):
    stated = (DOCS / "noises.md").read_text("utf-8")
    # Without the rows, so that those compared below are new.
    without = re.sub(r"^\| \[.*\n", "", stated, flags=re.MULTILINE)
    (tmp_path / "noises.md").write_text(without, "utf-8")
    runpy.run_path(str(DOCS / "make_noises.py"))["main"](tmp_path)
    made = (tmp_path / "noises.md").read_text("utf-8")
    pages = [re.sub("^n = .*$", "", x, flags=re.M) for x in (made, stated)]
    number = r"-?\d+\.\d\d"
    assert len({re.sub(number, "", page) for page in pages}) == 1
    # Two digits are stated, and the second may round the other way.
    pairs = [[*map(float, re.findall(number, page))] for page in pages]
    np.testing.assert_allclose(*pairs, rtol=0, atol=0.011)
    pictures = {path.name for path in DOCS.glob("images/noise_*")}
    assert pictures == {path.name for path in tmp_path.glob("images/*")}


def test_the_picture_of_the_readme_is_drawn_from_records(tmp_path):
    runpy.run_path(str(DOCS / "make_readme.py"))["main"](tmp_path)
    drawn, shown = (f / "readme.png" for f in (tmp_path, DOCS / "images"))
    # The signature, and the width and height.
    assert drawn.read_bytes()[:24] == shown.read_bytes()[:24]


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


def compare(study) -> dict:
    """The comparisons of a study, by arm and baseline."""
    compared = comparisons.compare(study)
    return {f"{each.arm} {each.baseline}": each for each in compared}


@pytest.mark.parametrize(
    "name, start, pairs",
    [
        ("claim", "**Water beats dropout**", ["water dropout", "none dropout"]),
        ("controls", "**Here most noise", ["plane_2 none", "gaussian none"]),
        ("controls", "**No colour", ["plane_1 gaussian", "plane_2 gaussian"]),
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
            "**Channel dropout cannot",
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
    compared = compare(store.read([RESULTS / name]))
    for pair in pairs:
        assert f"{abs(compared[pair].result.mean_difference):.1f}" in said[:260]


@pytest.mark.parametrize(
    ("name", "won", "undecided", "words"),
    [
        (
            "claim",
            ["water dropout", "none dropout"],
            ["water none"],
            "over {seeds} paired seeds, water beats dropout by {:.1f} points of "
            "accuracy. Training without a regularizer beats dropout by {:.1f}; between",
        ),
        (
            "shared_robustness",
            ["shared_gaussian gaussian"],
            ["shared_gaussian spatial_dropout", "shared_pink shared_gaussian"],
            "by {:.1f} points against independent noise, in a second study",
        ),
        (
            "sharing_cnn",
            ["shared_white own_white"],
            ["shared_white dropout"],
            "in a second study by {:.1f}.",
        ),
    ],
)
def test_the_readme_says_what_was_decided(name, won, undecided, words):
    study = store.read([RESULTS / name])
    found = compare(study)
    assert {found[pair].decision for pair in won} == {"wins"}
    assert {found[pair].decision for pair in undecided} == {"undecided"}
    gains = [abs(found[pair].result.mean_difference) for pair in won]
    said = words.format(*gains, seeds=len(study.plan.seeds))
    assert said in " ".join(README.read_text("utf-8").split())


def test_the_readme_says_what_was_undecided_and_what_failed():
    said = " ".join(README.read_text("utf-8").split())
    found = compare(store.read([RESULTS / "sharing_resnet20"]))
    each = found["shared_white own_white"]
    mean, low, high = (f"{abs(bound):.1f}" for bound in each.bounds)
    assert each.decision == "undecided"
    assert f"it is undecided ({mean} higher, −{low} to {high})" in said
    prediction = runpy.run_path(str(DOCS / "make_prediction.py"))
    correlations = []
    for name in prediction["PLANS"]:
        predicted = json.loads((DOCS / f"prediction/{name}.json").read_text())
        gains = prediction["gains"](store.read([RESULTS / name]))
        found = {corruption: gain.mean() for corruption, gain in gains.items()}
        judged = prediction["judge"](prediction["differences"](predicted), found)
        assert not judged["holds"]
        correlations.append(f"{judged['rho']:.2f}")
    assert f"failed for both (rank correlations {', '.join(correlations)})" in said


def test_sharing_is_at_similar_clean_accuracy():
    summary = comparisons.summarize(store.read([RESULTS / "shared_robustness"]))
    clean = {row["arm"]: row["accuracy_mean"] for row in summary}
    assert abs(clean["shared_gaussian"] - clean["gaussian"]) < 1
    assert abs(clean["shared_gaussian"] - clean["dropout"]) < 1


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
