"""Measures of trained models: light to declare, and their cached rows are outdated by all code that decides them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import spatialmae
from small_models import small_model
from spatialmae.data.dataset import ImageData, consecutive_splits
from spatialmae.evaluation.shared import Shared
from spatialmae.fingerprint import closure, counts, fingerprint
from spatialmae.measures import MEASURES
from spatialmae.probe import step_time
from spatialmae.probe.labelled_images import LabelledImages
from spatialmae.probe.settings import FineTuneConfig
from spatialmae.probe.step_time import step_times
from spatialmae.stages.evaluate import COMMON

SOURCE = Path(spatialmae.__file__).parent
CACHED = [*(f"spatialmae.measures.{name}" for name in MEASURES), "spatialmae.evaluation.fitted_probe"]
HEAVY = {"torch", "pandas", "sklearn", "scipy", "matplotlib", "skimage"}
# Computes rows of each measure of a made-up model, in a process of its own that has imported nothing of the package but
# what reads configurations, and writes which modules of the package that imported.
COMPUTE = """
import json, os, sys
from pathlib import Path
import pandas, skimage.metrics, sklearn.linear_model, sklearn.manifold, statsmodels.stats.proportion, torch
from spatialmae.config import Dense, FineTuning
from spatialmae.measures import MEASURES
known = set(sys.modules)

def compute(name, folder):
    import numpy as np
    from types import SimpleNamespace
    from spatialmae.data.dataset import ImageData, consecutive_splits
    from spatialmae.evaluation.measure import MeasuredModel
    from spatialmae.evaluation.shared import Evaluated, Shared
    from spatialmae.model.config import MAEConfig
    from spatialmae.model.mae import MaskedAutoencoder
    from spatialmae.model.trained import TrainedModel
    from spatialmae.train.plan import RunSpec
    from spatialmae.train.settings import TrainConfig

    rng, path = np.random.default_rng(0), folder / f"{name}.safetensors"
    n, side, c = (900, 8, 1) if name == "second_order" else (200, 16, 3)
    images = rng.integers(0, 256, (n, side, side, c), dtype=np.uint8)
    targets = {"label": rng.integers(0, 2, n), "segmentation": rng.integers(0, 2, (n, side, side))}
    data = ImageData("made up", images, consecutive_splits(n - 80, 40, 40), targets, {"label": ("a", "b")})
    data.save(path)
    sizes = {f"{part}_{what}": 8 if what == "dim" else 1 for part in ("encoder", "decoder")
             for what in ("dim", "depth", "heads")}
    config = MAEConfig(image_size=side, channels=c, patch_size=2, mask_ratio=0.75, **sizes)
    spec = RunSpec("made up", config, TrainConfig(epochs=1, batch_size=20, warmup_epochs=0.0), 0)
    model = MeasuredModel(
        spec.name, 0, {"of": "it"}, lambda: TrainedModel(MaskedAutoencoder(config).eval(), (0.5,) * c, (0.3,) * c),
        spec.settings(), spec, validation_losses=lambda: (np.array([1.0, 2.0]), np.array([0.5, 0.1])))
    tuned = {"n_blocks": [0], "epochs": 1, "batch_size": 40, "warmup_epochs": 0.0, "base_lr": [0.001]}
    settings = SimpleNamespace(
        mask_ratios=[0.75], mask_ratio=0.75, mask_unit=None, n_images=2, n_masks=1, n_test=40,
        dense=Dense(n_train=64, n_validation=10, n_test=10, epochs=2, fine_tuning_epochs=2),
        fine_tuning=FineTuning.model_validate(tuned))
    shared = Shared(data, path, 0, path, lambda module, model, settings, label, make: make())
    if name == "shape_bias":
        import spatialmae.measures.shape_bias as module
        module.CUES = {"n_train": 60, "n_validation": 20, "n_test": 20}
    parts = MEASURES[name].parts_of(Evaluated("e", settings, [model], shared))
    made = [MEASURES[name].rows(part.model, part.settings, shared) for part in parts]
    assert made and all(rows for tables in made for rows in tables.values())
    return sorted(module for module in set(sys.modules) - known if module.startswith("spatialmae."))

folder = Path(sys.argv[1])
for name in MEASURES:
    child = os.fork()
    if not child:
        (folder / f"{name}.json").write_text(json.dumps(compute(name, folder)))
        os._exit(0)
    os.waitpid(child, 0)
"""


def run_python(code: str, *arguments: object, source: Path = SOURCE) -> str:
    environment = os.environ | {"PYTHONPATH": str(source.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_measures_declare_is_read_without_what_they_compute_with():
    loaded = json.loads(
        run_python("import json, sys, spatialmae.config, spatialmae.layout; print(json.dumps(list(sys.modules)))")
    )
    assert not HEAVY & set(loaded)
    assert {f"spatialmae.measures.{name}" for name in MEASURES} <= set(loaded)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """For each measure the modules that computing its rows imports."""
    folder = tmp_path_factory.mktemp("imported")
    run_python(COMPUTE, folder)
    return {path.stem: set(json.loads(path.read_text())) for path in folder.glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MEASURES))
def test_a_fingerprint_covers_every_module_that_computing_rows_imports(name, imported):
    covered = closure(f"spatialmae.measures.{name}", *COMMON)
    packages = {".".join(path.parent.relative_to(SOURCE.parent).parts) for path in SOURCE.rglob("__init__.py")}
    found = imported[name] - packages
    assert "spatialmae.model.mae" in found
    assert {module for module in found if counts(module)} <= covered


def fingerprints(source: Path) -> dict[str, str]:
    """Of each module whose results are cached."""
    code = (
        "import json, sys\nfrom spatialmae.fingerprint import fingerprint\n"
        "print(json.dumps({name: fingerprint(name, *sys.argv[1].split(',')) for name in sys.argv[2].split(',')}))"
    )
    return json.loads(run_python(code, ",".join(COMMON), ",".join(CACHED), source=source))


def test_another_normalisation_outdates_every_cached_row_and_another_driver_none(tmp_path):
    source = shutil.copytree(SOURCE, tmp_path / "spatialmae", ignore=shutil.ignore_patterns("__pycache__"))
    before = fingerprints(source)
    assert before == {name: fingerprint(name, *COMMON) for name in CACHED}
    for path in ("stages/evaluate.py", "evaluation/cache.py", "train/runs.py", "layout.py"):
        (source / path).write_text((source / path).read_text() + "\nOTHER = 1\n")
    (source / "model/trained.py").write_text((source / "model/trained.py").read_text() + "\n# a comment\n")
    assert fingerprints(source) == before
    scaled = (source / "model/trained.py").read_text().replace("float() / 255", "float() / 100")
    (source / "model/trained.py").write_text(scaled)
    after = fingerprints(source)
    assert all(after[name] != before[name] for name in CACHED)


def test_a_measure_in_the_folder_is_known_to_configuration_workflow_and_driver(tmp_path):
    source = shutil.copytree(SOURCE, tmp_path / "spatialmae", ignore=shutil.ignore_patterns("__pycache__"))
    module = source / "measures" / "count.py"
    module.write_text(
        "from spatialmae.evaluation.measure import Measure\n\n\n"
        "def rows(model, settings, shared):\n    return {'count': [{'n': len(shared.data.images)}]}\n\n\n"
        "MEASURE = Measure('images', tables=('count',), rows=rows)\n"
    )
    code = """
import sys
from spatialmae.config import load_config
from spatialmae.config_docs import configuration_page
from spatialmae.layout import subjects_with
values = load_config(sys.argv[1]).model_dump()
values["evaluations"]["ratios"]["analyses"].append("count")
from spatialmae.config import parse_config
config = parse_config(values, "test")
print(subjects_with(config, "count"), "| `count` | images |" in configuration_page())
"""
    smoke = Path(__file__).parent.parent / "config" / "smoke.yaml"
    assert run_python(code, smoke, source=source).strip() == "['ratios'] True"


def test_what_models_share_is_made_once_and_given_up_for_another():
    made = []
    data = ImageData("one", np.zeros((3, 4, 4, 1), dtype=np.uint8), consecutive_splits(1, 1, 1))
    shared = Shared(data, Path("none"), 0, Path("none"), lambda *asked: asked[-1]())
    for seed in (0, 0, 1, 0):
        assert shared.once("scene", seed, lambda seed=seed: made.append(seed) or seed) == seed
    assert made == [0, 1, 0]


@pytest.fixture
def labelled(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, 8, 8, 2), dtype=np.uint8)
    data = ImageData("made up", images, consecutive_splits(40, 20, 20), {"label": rng.integers(0, 2, 80)})
    data.save(tmp_path / "data.safetensors")
    return LabelledImages.load(tmp_path / "data.safetensors", "label")


def test_steps_of_all_settings_are_timed_in_turn_by_one_thread(labelled, monkeypatch):
    order, trainings, prepare = [], [], step_time.prepare
    configs = [FineTuneConfig(n_blocks=n, epochs=2, batch_size=20, precision="fp32") for n in (0, 1, None)]

    def watched(*args, **kwargs):
        training = prepare(*args, **kwargs)
        step, place = training.step, len(trainings)
        trainings.append(training)
        training.step = lambda ids: order.append((place, torch.get_num_threads())) or step(ids)
        return training

    monkeypatch.setattr(step_time, "prepare", watched)
    readings = iter(range(1000))
    monkeypatch.setattr(step_time.time, "thread_time", lambda: next(readings) ** 2)
    threads = torch.get_num_threads()
    rows = step_times(small_model(torch.float32), labelled, configs, 0, n_steps=3)
    assert [place for place, _ in order] == [0, 1, 2] * 4
    assert {used for _, used in order} == {1} and torch.get_num_threads() == threads
    assert [row["n_blocks"] for row in rows] == [0, 1, 2]
    assert [row["embedding_trained"] for row in rows] == [False, False, True]
    # The clock is read before each step and after it; a first step of each is not counted.
    before = [[3 + 2 * (3 * step + place) for step in range(3)] for place in range(3)]
    assert [row["seconds_per_step"] for row in rows] == [np.median([2 * i + 1 for i in of_one]) for of_one in before]
