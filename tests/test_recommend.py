"""`spatialmae recommend`: folders of all kinds, what is said with and without calibration, and the files it writes."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from spatialmae.cli import app
from spatialmae.config import load_config
from spatialmae.data.folder import folder as folder_data
from spatialmae.data.random_fields import random_fields
from spatialmae.errors import UserError
from spatialmae.recommend.advice import N_GROUPS, Advice, Calibration, advise
from spatialmae.recommend.answer import Answer
from spatialmae.recommend.configuration import pipeline_config
from spatialmae.recommend.evidence import Grid
from spatialmae.recommend.images import FolderImages, read_images
from spatialmae.recommend.pictures import correlation_curve
from spatialmae.recommend.rules import mean_interval
from test_recommend_rules import calibration

N = 120


def fields(n: int = N, side: int = 16, seed: int = 0) -> np.ndarray:
    return random_fields(n_train=n, n_validation=0, n_test=0, image_size=side, seed=seed).images


def save(folder: Path, images: np.ndarray, suffix: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        path = folder / f"{i:04}.{suffix}"
        np.save(path, image) if suffix == "npy" else Image.fromarray(image.squeeze()).save(path)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> FolderImages:
    folder = tmp_path_factory.mktemp("pictures")
    save(folder / "a", fields())
    save(folder / "b", fields(seed=1))
    return read_images(folder)


def advice_on(images: FolderImages, calibration: Calibration | None) -> Advice:
    return advise(images, Grid(images.image_size, (2, 4), (0.25, 0.5, 0.75)), calibration)


@pytest.fixture(scope="module")
def useful() -> Calibration:
    return Calibration(calibration())


@pytest.fixture(scope="module")
def useless() -> Calibration:
    cells = calibration(rule=None)
    assert not Calibration(cells).comparison.rule_is_better
    return Calibration(cells)


def test_the_size_of_small_images_is_their_own(images):
    assert images.image_size == 16 and images.resize == "crop" and images.channels == 1
    assert images.class_sizes == {"a": N, "b": N} and images.n_files == 2 * N and images.skipped == []


def test_a_few_small_images_do_not_decide_the_size(tmp_path):
    save(
        tmp_path / "large",
        np.zeros((2 * N, 70, 90, 3), np.uint8) + np.arange(2 * N, dtype=np.uint8)[:, None, None, None],
    )
    save(tmp_path / "small", fields(3, 12))
    found = read_images(tmp_path)
    assert found.image_size == 64 and found.channels == 3
    assert [entry["reason"] for entry in found.skipped] == ["smaller than 64 pixels"] * 3


def test_large_images_are_tiled_and_their_tiles_know_their_image(tmp_path):
    rng = np.random.default_rng(0)
    save(tmp_path, rng.integers(256, size=(N, 64, 128, 1), dtype=np.uint8), "npy")
    found = read_images(tmp_path, image_size=8)
    assert found.resize == "tiles" and found.n_files == N
    assert len(found.images) == 16 * N and (np.bincount(found.sources) == 16).all()


def test_arrays_of_many_channels_are_read(tmp_path):
    save(tmp_path, np.random.default_rng(0).random((N, 16, 16, 6)), "npy")
    assert read_images(tmp_path).channels == 6


def test_files_are_taken_evenly_where_there_are_too_many(tmp_path):
    save(tmp_path, fields(300))
    found = read_images(tmp_path, max_images=100)
    assert found.n_files == 100
    np.testing.assert_array_equal(found.images[-1, ..., 0], np.asarray(Image.open(tmp_path / "0299.png")))


def test_files_that_are_no_images_take_no_place_among_those_read(tmp_path):
    save(tmp_path, fields(300))
    for i in range(300):
        (tmp_path / f"{i:04}.txt").write_text("beside it")
    found = read_images(tmp_path, max_images=120)
    assert found.n_files == 120 and found.n_in_folder == 300 and len(found.skipped) == 300
    with pytest.raises(UserError, match=re.escape("0 usable images (2 left out: not named as PNG")):
        read_images(_notes(tmp_path / "notes", 2))


def _notes(folder: Path, n: int) -> Path:
    folder.mkdir()
    for i in range(n):
        (folder / f"{i}.txt").write_text("not an image")
    return folder


def test_too_few_of_a_sample_say_that_more_can_be_read_and_reasons_come_by_kind(tmp_path):
    save(tmp_path, np.repeat(fields(30), 10, axis=0))
    with pytest.raises(UserError, match=r"left out: same bytes as another file\), too few; .*a larger --max-images"):
        read_images(tmp_path, max_images=110)


@pytest.mark.slow
def test_names_that_a_terminal_would_obey_or_that_are_no_utf_8_are_escaped(tmp_path):
    folder = save(tmp_path / "a\x1b[31m", fields())
    for name in (b"\xff.txt", b"b\nc\x07.txt"):
        (folder / os.fsdecode(name)).write_text("not an image")
    code, output = invoke(folder, "--json", tmp_path / "out.json", "--html", tmp_path / "out.html")
    assert code == 0 and "\x1b[31m" not in output and "\x07" not in output
    written = json.loads((tmp_path / "out.json").read_text())
    assert [entry["file"] for entry in written["skipped"]] == [r"b\nc\x07.txt", r"\udcff.txt"]
    assert written["path"].endswith(r"a\x1b[31m")
    assert r"a\x1b[31m" in (tmp_path / "out.html").read_text()
    assert r"a\x1b[31m/x: no such folder" in invoke(folder / "x")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30}, "--image-size: 30 is no multiple of 4 px from 8 on"),
        ({"image_size": 148}, "148 px cannot be averaged down by a whole factor to 16 to 32 px; use e.g. 144 or 152"),
        ({"resize": "zoom"}, "--resize: 'zoom' is unknown"),
        ({"max_images": 99}, "--max-images: 99 are too few"),
        (
            {"image_size": 64},
            "0 usable images (240 left out: smaller than 64 pixels), too few; give at least 100, or a smaller",
        ),
    ],
)
def test_impossible_options_are_named(images, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_images(images.path, **options)


def test_sizes_that_are_named_are_those_of_images_that_are_used(tmp_path):
    save(tmp_path, fields())
    Image.fromarray(np.zeros((6, 6), dtype=np.uint8)).save(tmp_path / "tiny.png")
    found = read_images(tmp_path)
    assert [entry["file"] for entry in found.skipped] == ["tiny.png"]
    assert found.sizes_say.startswith("shorter sides of 16 px")


def test_without_calibration_there_is_evidence_and_no_recommendation(images):
    advice = advice_on(images, None)
    assert not advice.recommends and not advice.picks
    assert advice.setting == (2, 0.75)  # MAE's own
    answer = Answer.of(advice, images)
    assert answer.headline.startswith("No setting is recommended") and "no calibration" in answer.how_sure


def test_a_calibration_in_which_no_rule_earned_its_place_gives_none(images, useless):
    advice = advice_on(images, useless)
    assert not advice.recommends and not advice.picks and advice.setting == (2, 0.75)
    answer = Answer.of(advice, images)
    assert answer.headline.startswith("No rule is known to do better than MAE's own setting")
    assert "patches of 2 px with a masking ratio of 0.75" in answer.headline
    assert "No rule has earned its place" in answer.how_sure


def test_a_calibration_in_which_data_sets_say_nothing_gives_none(images):
    flat = Calibration(calibration(noise=0.0).assign(accuracy=0.5, validation_accuracy=0.5))
    advice = advice_on(images, flat)
    assert not advice.recommends
    assert "hardly depended on the setting" in Answer.of(advice, images).how_sure
    json.dumps(advice.to_dict())


@pytest.mark.slow
def test_a_useful_rule_is_followed_and_says_how_sure_it_is(images, useful):
    advice = advice_on(images, useful)
    assert advice.recommends
    row = advice.cells.iloc[advice.position]
    assert abs(row["unexplained"] - 0.4) == np.abs(advice.cells["unexplained"] - 0.4).min()
    assert advice.picks.total() == 5 * 8  # groups of images × rules
    assert advice.agreement == advice.picks[advice.setting] / 40
    assert advice.setting[0] in advice.patch_sizes
    low, high = advice.mask_ratio_range
    assert low <= high
    answer = Answer.of(advice, images)
    assert answer.headline.startswith(f"Patches of {advice.setting[0]} px")
    assert "0.4 of the hidden pixels' variance" in answer.rests_on
    held_out = useful.held_out
    mean, low, high = (100 * value for value in mean_interval(held_out["regret"].to_numpy()))
    assert f"lost {mean:.1f} [{low:.1f}, {high:.1f}] points" in answer.how_sure
    assert f"MAE's own setting {100 * held_out['regret_default'].mean():.1f}" in answer.how_sure


@pytest.mark.slow
def test_the_headline_names_other_picks(images, useful):
    advice = advice_on(images, useful)
    mixed = Counter({(2, 0.5): 3, (4, 0.25): 2, (4, 0.75): 1})
    answer = Answer.of(Advice(advice.grid, advice.correlations, 0.1, advice.cells, useful, mixed), images)
    assert "0.25 to 0.75" in answer.headline
    other = 6 - advice.setting[0]
    assert f"(or {other} px)" in answer.headline


def test_a_correlation_that_stays_above_1_over_e_is_said_to_and_has_no_length(tmp_path, useful):
    levels = np.linspace(0, 200, N, dtype=np.uint8)[:, None, None, None]
    found = read_images(save(tmp_path, levels + fields() // 16))
    advice = advice_on(found, useful)
    assert advice.recommends
    assert "stays above 1/e at all distances within the images' 16 px" in Answer.of(advice, found).rests_on
    assert "1/e at more than 16 px" in correlation_curve(advice).axes[0].get_title(loc="left")
    written = json.loads(json.dumps(advice.to_dict(), allow_nan=False))
    assert written["correlation_length"] is None and written["correlation_length_error"] is None
    assert written["settings"][0]["correlation_length"] is None


def test_where_one_group_decides_the_error_cannot_be_estimated(tmp_path, useful):
    some = fields()
    some[np.arange(N) % N_GROUPS > 0] = 128
    for i, image in enumerate(some):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{i:04}.png", pnginfo=_note(i))
    found = read_images(tmp_path)
    advice = advice_on(found, useful)
    assert "with an error that cannot be estimated" in Answer.of(advice, found).rests_on
    assert advice.picks.total() == (N_GROUPS - 1) * len(useful.rules)
    written = json.loads(json.dumps(advice.to_dict(), allow_nan=False))
    assert written["correlation_length"] > 0 and written["correlation_length_error"] is None


def test_all_numbers_are_written_as_json(images, useful):
    written = json.loads(json.dumps(advice_on(images, useful).to_dict(), allow_nan=False))
    assert written["patch_size"] in (2, 4) and len(written["settings"]) == 6
    assert len(written["calibration"]["data_sets"]) == 8


@pytest.mark.slow
def test_the_pipeline_runs_on_what_is_written(images, useful, tmp_path):
    advice = advice_on(images, useful)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(pipeline_config(advice, images)))
    config = load_config(path)
    name = f"images-{images.path.name}"
    assert config.name == name and config.datasets[name].source.shape == (16, 16, 1)
    models = {stage: config.training_runs(stage)[0].model for stage in config.training}
    assert (models["followed"].patch_size, models["followed"].mask_ratio) == advice.setting
    assert ("default" in models) == (advice.setting != (2, 0.75))
    assert config.evaluations["models"].analyses == ["jacobian", "linear_probe"]
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--configfile",
        str(path),
        "--config",
        f"results={tmp_path}/results",
    ]
    run = subprocess.run([*command, "--quiet", "rules"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.slow
def test_large_images_are_trained_on_averaged_down_with_their_patches(tmp_path):
    save(tmp_path / "images", fields(N, 64))
    found = read_images(tmp_path / "images")
    advice = advise(found, Grid(64, (8, 16), (0.5, 0.75)), None)
    config = pipeline_config(advice, found)
    assert config["datasets"]["images-images"]["source"]["image_size"] == 32
    assert config["training"]["followed"]["model"]["patch_size"] == advice.setting[0] // 2
    assert config["evaluations"]["models"]["analyses"] == ["jacobian"]  # no classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "patch_sizes", "mask_units"), [(28, (2, 7), {"models": 14}), (20, (4, 5), {"followed": 5, "default": 4})]
)
def test_patches_that_do_not_nest_share_masks_of_a_common_unit_or_none(side, patch_sizes, mask_units, useful, tmp_path):
    found = read_images(save(tmp_path / "images", fields(N, side)))
    advice = advise(found, Grid(side, patch_sizes, (0.25,)), useful)
    assert advice.setting[0] == patch_sizes[1]  # the other is MAE's own
    evaluations = pipeline_config(advice, found)["evaluations"]
    assert {name: evaluation["mask_unit"] for name, evaluation in evaluations.items()} == mask_units


def invoke(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["recommend", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        return 1, str(result.exception)
    assert result.exception is None, result.exception
    return result.exit_code, result.output


@pytest.mark.slow
def test_the_command_prints_the_answer_and_writes_what_is_asked_for(tmp_path):
    folder = save(tmp_path / "mine", fields())
    (folder / "notes.txt").write_text("not an image")
    (folder / "broken.png").write_bytes((folder / "0000.png").read_bytes()[:60])
    files = {name: tmp_path / name for name in ("out.json", "out.html", "out.yaml")}
    code, output = invoke(
        folder, "--json", files["out.json"], "--html", files["out.html"], "--write-config", files["out.yaml"]
    )
    assert code == 0
    assert "120 grey images, 2 files left out" in re.sub(r"\s+", " ", output)
    assert "notes.txt: not named as PNG" in output
    written = json.loads(files["out.json"].read_text())
    assert written["n_images"] == N and len(written["skipped"]) == 2
    page = files["out.html"].read_text()
    assert "broken.png" in page and page.count("data:image/png;base64") == 3
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert load_config(files["out.yaml"]).name == "images-mine"
    assert f"--configfile {files['out.yaml']}\n" in files["out.yaml"].read_text()


@pytest.mark.slow
def test_all_files_that_are_left_out_are_counted_and_some_named(tmp_path):
    folder = save(tmp_path / "mine", fields())
    for i in range(7):
        (folder / f"{i}.txt").write_text("not an image")
    code, output = invoke(folder)
    assert code == 0 and output.count("not named as PNG") == 5 and "and 2 more" in output
    assert "MAE's own setting, scaled to these images" in output


def test_a_folder_in_the_place_of_a_file_to_write_is_refused_before_the_work(tmp_path):
    folder = save(tmp_path / "mine", fields())
    (tmp_path / "out").mkdir()
    code, output = invoke(folder, "--json", tmp_path / "out.json", "--write-config", tmp_path / "out")
    assert code == 1 and "out: is a folder; name a file to write" in output
    assert not (tmp_path / "out.json").exists()


def _cannot_be_written(tmp_path: Path) -> dict[str, tuple[list[object], str]]:
    (tmp_path / "link.json").symlink_to(tmp_path / "out.json")
    (tmp_path / "file").touch()
    out = tmp_path / "out.json"
    return {
        "same": (["--json", out, "--html", tmp_path / "." / "out.json"], "is named for two outputs"),
        "link": (["--json", out, "--html", tmp_path / "link.json"], "is named for two outputs"),
        "nested": (["--json", out, "--html", out / "page.html"], "is also the folder of another output"),
        "device": (["--json", out, "--html", os.devnull], "is no regular file; name a file to write"),
        "below": (["--json", out, "--html", tmp_path / "file" / "new" / "page.html"], "file is a file, not a folder"),
    }


@pytest.mark.parametrize("kind", ["same", "link", "nested", "device", "below"])
def test_outputs_that_cannot_be_written_are_refused_before_the_work(kind, tmp_path):
    options, message = _cannot_be_written(tmp_path)[kind]
    code, output = invoke(tmp_path / "no images are looked for", *options)
    assert code == 1 and message in output and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("name", ["{x}", "a}", "<results>", os.fsdecode(b"\xff")])
def test_no_configuration_is_written_for_paths_that_the_pipeline_cannot_take(name, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / f"{name}.png").touch()
    code, output = invoke(folder, "--write-config", tmp_path / "out.yaml")
    assert code == 1 and "rename it" in output
    assert "0 usable images" in invoke(folder, "--json", tmp_path / "out.json")[1]


@pytest.mark.slow
def test_a_link_is_written_through(tmp_path):
    folder = save(tmp_path / "mine", fields())
    (tmp_path / "link.json").symlink_to(tmp_path / "new" / "out.json")
    assert invoke(folder, "--json", tmp_path / "link.json")[0] == 0
    assert (tmp_path / "link.json").is_symlink() and json.loads((tmp_path / "new" / "out.json").read_text())


@pytest.mark.slow
def test_values_that_span_few_levels_are_warned_of_everywhere(tmp_path):
    folder = save(tmp_path / "mine", fields() // 16)
    (folder / "notes.txt").write_text("not an image")
    code, output = invoke(folder, "--json", tmp_path / "out.json", "--html", tmp_path / "out.html")
    assert code == 0 and "of the 256 grey levels" in " ".join(output.split()) and ", 1 file left out:" in output
    assert "Marked (*)" in output and output.count("*") == 3
    assert "Half of the images span" in json.loads((tmp_path / "out.json").read_text())["answer"]["warning"]
    assert "Half of the images span" in (tmp_path / "out.html").read_text()


def test_the_configuration_judges_classes_and_batches_by_all_files(tmp_path, useful):
    for place in range(3):
        save(tmp_path / "mine" / str(place), fields(200, 8, seed=place))
    found = read_images(tmp_path / "mine", max_images=100)
    assert found.class_sizes == {"0": 200, "1": 200, "2": 200}
    assert min(np.bincount(found.sources)) == 1 and not Answer.of(advice_on(found, None), found).warning
    config = pipeline_config(advice_on(found, None), found)
    assert config["training"]["followed"]["train"]["batch_size"] == 128
    assert "probe_class" in config["datasets"]["images-mine"]["analyses"]


@pytest.mark.slow
def test_classes_too_small_to_be_probed_are_said_where_a_configuration_is_written(tmp_path):
    save(tmp_path / "mine" / "many", fields(110, 8))
    save(tmp_path / "mine" / "few", fields(10, 8, seed=1))
    code, output = invoke(tmp_path / "mine", "--write-config", tmp_path / "out.yaml")
    assert code == 0 and "the smallest of 2 subfolders holds 10 images" in " ".join(output.split())


@pytest.mark.parametrize("name", ["digits", "cifar10", "quick"])
def test_no_folder_takes_the_name_of_a_configuration_or_data_set_of_ours(name, useful, tmp_path):
    found = read_images(save(tmp_path / name, fields()))
    config = pipeline_config(advice_on(found, useful), found)
    assert config["name"] == f"images-{name}"
    assert config["datasets"][config["name"]]["source"]["path"] == str(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "has_classes"), [((60, 60), True), ((118, 1, 1), False), ((3,) * 40, False)])
def test_classes_of_few_images_are_none_in_what_is_written(sizes, has_classes, useful, tmp_path):
    for place, rows in enumerate(np.split(np.arange(N), np.cumsum(sizes)[:-1])):
        save(tmp_path / "mine" / str(place), fields()[rows])
    found = read_images(tmp_path / "mine")
    source = pipeline_config(advice_on(found, useful), found)["datasets"]["images-mine"]["source"]
    made = folder_data(**{key: value for key, value in source.items() if key != "kind"}, seed=0)
    assert ("label" in made.targets) == has_classes and len(made.images) == N


def test_images_that_are_all_the_same_are_refused_and_nothing_is_written(tmp_path):
    flat = np.full((N, 16, 16, 1), 9, np.uint8)
    flat[:, 0, 0, 0] = 9
    folder = tmp_path / "same"
    folder.mkdir()
    for i in range(N):
        Image.fromarray(flat[i, ..., 0]).save(folder / f"{i}.png", pnginfo=_note(i))
    code, output = invoke(folder, "--json", tmp_path / "out.json")
    assert code == 1 and "they are all the same; give images that differ" in output.replace("—", "")
    assert not (tmp_path / "out.json").exists()


def _note(i: int):
    from PIL.PngImagePlugin import PngInfo

    note = PngInfo()  # makes the bytes differ
    note.add_text("number", str(i))
    return note


def test_a_missing_folder_is_named(tmp_path):
    code, output = invoke(tmp_path / "nowhere")
    assert code == 1 and "no such folder" in output
    (tmp_path / "file").touch()
    code, output = invoke(tmp_path / "file")
    assert code == 1 and "is a file, not a folder" in output


@pytest.mark.parametrize(
    ("shape", "values", "message"),
    [
        (
            (5, 32, 32),
            np.uint8,
            "(3 left out: shape (5, 32, 32) reads as (c, h, w), not (h, w, c): move the channels last)",
        ),
        ((3, 32, 48), np.uint8, "reads as (c, h, w)"),
        ((32, 32, 5), np.int16, "(3 left out: int16 values, not uint8, uint16, or floats in [0, 1])"),
    ],
)
def test_why_no_file_can_be_used_is_said(tmp_path, shape, values, message):
    save(tmp_path / "mine", np.zeros((3, *shape), values), "npy")
    with pytest.raises(UserError, match=re.escape(f"0 usable images {message}" if message[0] == "(" else message)):
        read_images(tmp_path / "mine")


def test_an_empty_folder_is_said_so(tmp_path):
    with pytest.raises(UserError, match="holds no files; give a folder of PNG, JPEG, WebP or npy files, 100 or more"):
        read_images(tmp_path)
