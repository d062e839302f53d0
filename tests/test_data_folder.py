"""A user's folder: modes and bit depths, what is left out and why, classes and splits."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spatialmae.data.decoding as decoding
import spatialmae.data.folder as module
from refusals import refused
from spatialmae.data.dataset import ImageData
from spatialmae.data.folder import folder
from spatialmae.errors import UserError
from spatialmae.stages.data import print_skipped


def noise(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8))


def fill(path: Path, n: int = 10, first: int = 0, suffix: str = "png") -> None:
    path.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + n):
        noise(i).save(path / f"{i:03}.{suffix}")


def read_one(path: Path, image: Image.Image, name: str = "000.png", **options: object) -> np.ndarray:
    """The pixels that ``folder`` makes of one image, which is the first of its files."""
    fill(path, first=1)
    image.save(path / name, **options)
    data = folder(path, image_size=16, seed=0)
    assert data.provenance["skipped"] == []
    return data.images[0]


def flat(mode: str, value: object) -> Image.Image:
    return Image.new(mode, (20, 16), value)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (flat("1", 1), (255, 255, 255)),
        (flat("L", 77), (77, 77, 77)),
        (flat("LA", (0, 0)), (255, 255, 255)),
        (flat("LA", (100, 255)), (100, 100, 100)),
        (flat("RGB", (1, 2, 3)), (1, 2, 3)),
        (flat("RGBA", (200, 100, 0, 0)), (255, 255, 255)),
        (flat("RGBA", (200, 100, 0, 255)), (200, 100, 0)),
        (flat("RGBA", (0, 0, 0, 51)), (204, 204, 204)),
        (Image.fromarray(np.full((16, 16), 257 * 33, np.uint16)), (33, 33, 33)),
        (Image.fromarray(np.full((16, 16), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((16, 16), 129, np.uint16)), (1, 1, 1)),
    ],
)
def test_modes_and_bit_depths(tmp_path, image, expected):
    pixels = read_one(tmp_path / "images", image)
    assert pixels.shape == (16, 16, 3) and (pixels == expected).all()


def test_palettes_with_and_without_transparency(tmp_path):
    palette = flat("P", 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert (read_one(tmp_path / "opaque", palette) == (10, 20, 30)).all()
    assert (read_one(tmp_path / "transparent", palette, transparency=1) == 255).all()
    assert (read_one(tmp_path / "key", flat("RGB", (5, 6, 7)), transparency=(5, 6, 7)) == 255).all()


def test_cmyk_jpeg_and_webp(tmp_path):
    cyan = read_one(tmp_path / "cmyk", flat("CMYK", (255, 0, 0, 0)), "000.jpg", quality=100)
    np.testing.assert_allclose(cyan.reshape(-1, 3), np.tile([0, 255, 255], (256, 1)), atol=3)
    webp = read_one(tmp_path / "webp", flat("RGBA", (9, 8, 7, 255)), "000.webp", lossless=True)
    assert (webp == (9, 8, 7)).all()


def test_orientation_in_exif_is_applied(tmp_path):
    image = noise(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: to be rotated by 90° clockwise
    pixels = read_one(tmp_path / "images", image, exif=exif)
    np.testing.assert_array_equal(pixels, np.rot90(np.asarray(image), -1))


def test_crop_takes_the_centre_and_stretch_everything(tmp_path):
    wide = np.zeros((16, 64, 3), np.uint8)
    wide[:, 24:40] = np.asarray(noise(0))
    fill(tmp_path, first=1)
    Image.fromarray(wide).save(tmp_path / "000.png")
    cropped = folder(tmp_path, image_size=8, seed=0).images[0]
    centre = wide[:, 24:40].reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(cropped, centre, atol=1)
    stretched = folder(tmp_path, image_size=8, resize="stretch", seed=0).images[0]
    np.testing.assert_allclose(stretched, wide.reshape(8, 2, 8, 8, 3).mean(axis=(1, 3)), atol=1)


def test_grayscale_is_luminance(tmp_path):
    fill(tmp_path, n=9)
    flat("L", 77).save(tmp_path / "grey.png")
    colour, grey = (folder(tmp_path, image_size=16, grayscale=grayscale, seed=0) for grayscale in (False, True))
    assert grey.image_shape == (16, 16, 1) and (grey.images[-1] == 77).all()
    np.testing.assert_allclose(grey.images[..., 0], colour.images @ [0.2125, 0.7154, 0.0721], atol=0.51)


def test_what_is_left_out_and_why(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 32 * 32)
    fill(tmp_path)
    nested = tmp_path / "deep" / "er"
    fill(nested, n=1, first=50, suffix="PNG")
    noise(60, (16, 15)).save(tmp_path / "small.png")
    noise(61, (33, 32)).save(tmp_path / "large.png")
    whole = io.BytesIO()
    noise(62).save(whole, "PNG")
    (tmp_path / "truncated.png").write_bytes(whole.getvalue()[:400])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.webp").touch()
    noise(63).save(tmp_path / "disguised.png", "GIF")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "copy.png").write_bytes((tmp_path / "003.png").read_bytes())
    (tmp_path / ".hidden").mkdir()
    noise(64).save(tmp_path / ".hidden" / "thumbnail.png")
    data = folder(tmp_path, image_size=16, seed=0)
    reasons = {entry["file"]: entry["reason"] for entry in data.provenance["skipped"]}
    assert len(data.images) == 11 and data.targets == {}
    assert reasons.pop("truncated.png").startswith("damaged (")
    assert reasons == {
        "small.png": "smaller than 16 pixels",
        "large.png": "more than 1024 pixels",
        "text.jpg": "damaged (not a PNG, JPEG or WebP)",
        "empty.webp": "damaged (not a PNG, JPEG or WebP)",
        "disguised.png": "damaged (not a PNG, JPEG or WebP)",
        "notes.txt": "not named as PNG, JPEG, WebP or npy",
        "copy.png": "same bytes as 003.png",
    }
    print_skipped(data)
    printed = capsys.readouterr().out
    assert "11 images used, 8 files left out" in printed
    assert "3 × damaged (not a PNG, JPEG or WebP)" in printed
    assert "copy.png: same bytes as 003.png" in printed


def test_a_decompression_bomb_is_never_decoded(tmp_path, monkeypatch):
    fill(tmp_path)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded") if image.width > 99 else None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with refused(tmp_path.name, "add images", about="64000000 pixels"):
            folder(tmp_path, image_size=64, seed=0)


def test_subfolders_are_classes_and_splits_stratified(tmp_path):
    for index, name in enumerate(("cat", "ant", "bee")):
        fill(tmp_path / name, n=20, first=100 * index)
        fill(tmp_path / name / "more", n=20, first=100 * index + 50)
    (tmp_path / "README.txt").write_text("three classes")
    data = folder(tmp_path, image_size=8, validation_fraction=0.2, test_fraction=0.1, seed=1)
    assert data.class_names == {"label": ("ant", "bee", "cat")}
    for split, size in (("train", 28), ("validation", 8), ("test", 4)):
        np.testing.assert_array_equal(np.bincount(data.target("label", split)), [size] * 3)
    again, other = (folder(tmp_path, image_size=8, seed=seed) for seed in (1, 2))
    assert not np.array_equal(again.splits["test"], other.splits["test"])
    bee = Image.open(sorted((tmp_path / "bee").rglob("*.png"))[0])
    expected = np.asarray(bee).reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(data.images[data.targets["label"] == 1][0], expected, atol=1)
    data.save(tmp_path / "saved.safetensors")
    assert ImageData.load(tmp_path / "saved.safetensors").provenance == data.provenance


def test_one_subfolder_or_images_beside_subfolders_are_no_classes(tmp_path):
    fill(tmp_path / "only" / "one")
    assert folder(tmp_path, image_size=8, seed=0).targets == {}
    fill(tmp_path / "second", first=20)
    assert set(folder(tmp_path, image_size=8, seed=0).targets) == {"label"}
    noise(99).save(tmp_path / "beside.png")
    assert folder(tmp_path, image_size=8, seed=0).targets == {}


def test_too_few_images_are_refused_with_the_reasons(tmp_path):
    with refused(tmp_path.name, "add images", about="0 usable"):
        folder(tmp_path, image_size=8, seed=0)
    fill(tmp_path, n=4)
    with refused(tmp_path.name, "add images", about="4 usable"):
        folder(tmp_path, image_size=8, seed=0)
    fill(tmp_path, n=30)
    with refused(tmp_path.name, "add images", about="30 smaller than 32"):
        folder(tmp_path, image_size=32, seed=0)
    assert len(folder(tmp_path, image_size=8, seed=0).splits["test"]) == 3


def test_a_class_of_one_image_is_refused(tmp_path):
    fill(tmp_path / "many", n=30)
    fill(tmp_path / "lone", n=1, first=90)
    with pytest.raises(
        UserError, match="lone: 1 usable images cannot be split 3 ways as a class; .* source.classes: false"
    ):
        folder(tmp_path, image_size=8, seed=0)
    data = folder(tmp_path, image_size=8, classes=False, seed=0)
    assert data.targets == {} and len(data.splits["test"]) == 3


@pytest.mark.parametrize(
    ("image_size", "resize", "validation", "test", "field", "hint"),
    [
        (0, "crop", 0.1, 0.1, "folder.image_size", "at least 1"),
        (8, "tile", 0.1, 0.1, "folder.resize", "crop, stretch"),
        (8, "crop", 0.6, 0.4, "folder", "below 1"),
        (8, "crop", 0.1, -0.1, "folder", "from 0"),
    ],
)
def test_impossible_values_are_refused(tmp_path, image_size, resize, validation, test, field, hint):
    with refused(field, hint):
        module._check(tmp_path, image_size, resize, validation, test)


def test_a_missing_folder_is_refused(tmp_path):
    with refused("absent", "give the path of a folder of images"):
        folder(tmp_path / "absent", image_size=8, seed=0)


def save_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        np.save(path / f"{i:03}.npy", array)


def arrays_of(n: int, shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(256, size=(n, *shape), dtype=np.uint8))


def test_arrays_of_any_channels_are_read_as_they_are(tmp_path):
    arrays = arrays_of(10, (16, 16, 5))
    save_arrays(tmp_path, arrays)
    data = folder(tmp_path, image_size=16, channels=5, seed=0)
    np.testing.assert_array_equal(data.images, np.stack(arrays))
    half = folder(tmp_path, image_size=8, channels=5, seed=0).images[0]
    expected = arrays[0].reshape(8, 2, 8, 2, 5).mean(axis=(1, 3))
    assert np.abs(half - expected).max() <= 1  # Pillow rounds after rows and after columns


def test_arrays_of_other_types_are_scaled_to_eight_bits(tmp_path):
    values = arrays_of(3, (8, 8))
    wide = [(values[0].astype(np.uint16) * 257)] * 1
    floats = [values[1] / 255, values[2].astype(np.float32) / 255]
    save_arrays(tmp_path, wide + floats + arrays_of(9, (8, 8), seed=1))
    data = folder(tmp_path, image_size=8, grayscale=True, seed=0)
    np.testing.assert_array_equal(data.images[:3, ..., 0], np.stack(values))


def test_unusable_arrays_are_left_out_with_their_reasons(tmp_path):
    fill(tmp_path)
    bad = {
        "channels": np.zeros((16, 16, 5), np.uint8),
        "first": np.zeros((13, 40, 32), np.uint8),
        "negative": np.full((16, 16), -0.1),
        "nan": np.full((16, 16), np.nan),
        "counts": np.zeros((16, 16), np.int64),
        "vector": np.zeros(16, np.uint8),
        "narrow": np.zeros((15, 16), np.uint8),
        "objects": np.array([{"a": 1}], dtype=object),
    }
    for name, array in bad.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "truncated.npy").write_bytes((tmp_path / "channels.npy").read_bytes()[:200])
    reasons = {
        entry["file"]: entry["reason"] for entry in folder(tmp_path, image_size=16, seed=0).provenance["skipped"]
    }
    assert reasons["channels.npy"] == "5 channels, not 3"
    assert reasons["negative.npy"] == "float64 values from -0.1 to -0.1, not in [0, 1]"
    assert reasons["nan.npy"] == "float64 values that are NaN or infinite"
    assert reasons["first.npy"].startswith("shape (13, 40, 32) reads as (c, h, w)")
    assert reasons["counts.npy"].startswith("int64 values")
    assert reasons["vector.npy"] == "no array of (h, w) or (h, w, c)"
    assert reasons["narrow.npy"] == "smaller than 16 pixels"
    assert reasons["objects.npy"].startswith("damaged (") and reasons["truncated.npy"].startswith("damaged (")
    assert set(reasons) == {f"{name}.npy" for name in (*bad, "truncated")}


@pytest.mark.parametrize(
    "content",
    [
        b"not an array",
        b"PK\x03\x04 nor an archive",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((((\n",
        b"\x93NUMPY\x01\x00\x48\x00{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999999999,)}\n",
        b"\x93NUMPY\x01\x00\x48\x00{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999, 9)}\n",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': [(1,)]}\n",
        b"\x93NUMPY\x01\x00\xff\x0f" + b"(" * 4095,
    ],
)
def test_whatever_is_wrong_with_an_npy_file_it_is_left_out_for_a_reason_of_one_line(content):
    with pytest.raises(decoding.UnusableImageError, match=r"^damaged \(.+\)$") as error:
        decoding.shorter_side(content, ".npy")
    assert "unsafe" not in str(error.value)


def test_headers_of_python_2_are_read_without_a_warning():
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 2L)}\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoding.shorter_side(content, ".npy") == (2, 1)


@pytest.mark.parametrize("kind", [">u2", ">f4", ">f8"])
def test_arrays_of_the_other_byte_order_are_read(tmp_path, kind):
    values = arrays_of(10, (8, 8))
    save_arrays(
        tmp_path, [(own.astype(np.float64) * (257 if kind == ">u2" else 1 / 255)).astype(kind) for own in values]
    )
    data = folder(tmp_path, image_size=8, grayscale=True, seed=0)
    np.testing.assert_array_equal(data.images[..., 0], np.stack(values))


def test_tiles_are_pieces_of_their_image_and_share_its_split(tmp_path):
    arrays = arrays_of(10, (40, 100, 3))
    save_arrays(tmp_path / "a", arrays[:5])
    save_arrays(tmp_path / "b", arrays[5:])
    data = folder(tmp_path, image_size=16, resize="tiles", validation_fraction=0.2, test_fraction=0.2, seed=0)
    assert data.provenance["n_images"] == 10
    assert len(data.images) == 10 * 2 * 4
    sources = data.sources
    assert sources is not None
    for i in (0, 7):
        own = data.images[sources == i]
        np.testing.assert_array_equal(own[0], arrays[i][:16, :16])
        np.testing.assert_array_equal(own[-1], arrays[i][-16:, -16:])
    assert (np.bincount(sources) == 8).all()
    of_split = [set(sources[rows]) for rows in data.splits.values()]
    assert sum(map(len, of_split)) == 10
    np.testing.assert_array_equal(data.targets["label"], (sources >= 5).astype(int))


def test_channels_and_grayscale_exclude_each_other(tmp_path):
    fill(tmp_path)
    with refused("folder.channels", "no grayscale"):
        folder(tmp_path, image_size=16, channels=5, grayscale=True, seed=0)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "RGBA"])
def test_size_and_channels_are_told_from_the_header_as_the_image_is_decoded(tmp_path, mode):
    picture = Image.fromarray(np.zeros((20, 30), np.uint16)) if mode == "I;16" else Image.new(mode, (30, 20))
    picture.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    channels = 1 if mode in ("L", "I;16") else 3
    assert decoding.shorter_side(content, ".png") == decoding.shorter_side(content[:60], ".png") == (20, channels)
    tiles = decoding.squares(content, ".png", image_size=10, resize="tiles", channels=channels)
    assert len(tiles) == 6 and tiles[0].shape == (10, 10, channels)
