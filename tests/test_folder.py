"""A folder of pictures gives the images that Pillow gives by hand, in the order of their names."""

import io
import os
import re
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from bvae_jax.data import folder as module
from bvae_jax.data import pictures
from bvae_jax.data.folder import open_folder
from bvae_jax.errors import UserError

SIDE = 16


def assert_near(images, wanted):
    """But for the rounding of pixels, and the filter's reach over the edge of the square."""
    np.testing.assert_allclose(images.astype(int), np.asarray(wanted).astype(int), atol=3)


def opened(path, data_dir, *, size: int | None = SIDE, grey: bool | None = False):
    return open_folder(path, image_size=size, grey=grey, data_dir=data_dir, progress=False)


def images(dataset):
    return np.asarray(dataset.pixels.images)


def picture(seed, width=20, height=30, mode="RGB"):
    """Smooth, so that lossy formats lose little."""
    rng = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    small = rng.integers(0, 256, (3, 3, channels), np.uint8)
    bands = [Image.fromarray(small[..., c]).resize((width, height)) for c in range(channels)]
    return Image.merge(mode, bands) if channels > 1 else bands[0].convert(mode)


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture(len(path.name))).save(path, **options)
    return path


def by_hand(image, side=SIDE, mode="RGB"):
    """The shorter side resized to `side`, and then the centre: another way to the same picture."""
    image = image.convert(mode)
    width, height = image.size
    scale = side / min(width, height)
    resized = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    left, top = (resized.width - side) // 2, (resized.height - side) // 2
    square = np.asarray(resized.crop((left, top, left + side, top + side)))
    return square.reshape(side, side, -1)


@pytest.fixture
def folder(tmp_path):
    """Five pictures, b.png to f.PNG, and what is none."""
    path = tmp_path / "my pictures"
    for index, name in enumerate(["c.png", "b.png", "e.png", "d.png", "f.PNG"]):
        save(path / name, picture(index), format="PNG")
    (path / ".DS_Store").write_bytes(b"x")
    (path / "notes.txt").write_text("x")
    (path / "._b.png").write_bytes(b"x")
    save(path / ".thumbnails" / "b.png")
    return path


@pytest.mark.parametrize(("grey", "channels"), [(False, 3), (True, 1)])
def test_pictures_as_by_hand_in_the_order_of_their_names(folder, tmp_path, grey, channels):
    dataset = opened(folder, tmp_path / "data", grey=grey)
    assert dataset.image_shape == (SIDE, SIDE, channels)
    assert (dataset.size, dataset.factor_names, dataset.labels) == (5, (), None)
    assert dataset.name == f"folder:{folder}"
    mode = "L" if grey else "RGB"
    wanted = [by_hand(Image.open(folder / f"{n}"), mode=mode)
              for n in ("b.png", "c.png", "d.png", "e.png", "f.PNG")]  # fmt: skip
    assert_near(images(dataset), wanted)
    assert images(dataset).dtype == np.uint8


RGB = "RGB"
FORMS = {
    "digits": ([(8, 8, "L")] * 3, (8, 8, 1), "8×8 grey"),
    "grey in three channels": ([(28, 28, "L"), (28, 28, "L/RGB"), (28, 28, "LA")], (28, 28, 1),
                               "28×28 grey"),
    "colours": ([(32, 32, RGB)] * 3, (32, 32, 3), "32×32 colour"),
    "one colour": ([(20, 20, "L")] * 20 + [(20, 20, RGB)], (20, 20, 3), "20×20 colour"),
    "squares of their centres": ([(30, 12, "1"), (12, 41, "L"), (12, 12, "1")], (12, 12, 1),
                                 "12 to 41 pixels grey"),
    "two sizes": ([(28, 28, "L"), (28, 28, "L"), (32, 32, "L")], (64, 64, 1),
                  "28 to 32 pixels grey"),
    "just small": ([(64, 64, RGB)] * 3, (64, 64, 3), "64×64 colour"),
    "just large": ([(65, 65, RGB)] * 3, (64, 64, 3), "65×65 colour"),
    "tiny": ([(7, 7, "L")] * 3, (64, 64, 1), "7×7 grey"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_small_equal_pictures_keep_their_size_and_grey_ones_one_channel(tmp_path, name):
    files, shape, told = FORMS[name]
    for index, (width, height, mode) in enumerate(files):
        first, *then = mode.split("/")
        image = picture(index, width, height, first)
        save(tmp_path / "in" / f"{index:02}.png", image.convert(then[0]) if then else image)
    (tmp_path / "in" / "broken.png").write_text("x")
    path, data = tmp_path / "in", tmp_path / "data"
    dataset = opened(path, data, size=None, grey=None)
    assert (dataset.image_shape, dataset.pictures) == (shape, told)
    chosen = opened(path, data, size=shape[0], grey=shape[2] == 1)
    assert chosen.identity == dataset.identity


def test_what_is_chosen_and_what_earlier_runs_say_holds(tmp_path):
    """Earlier versions wrote 0 and false, which meant 64×64×3."""
    for index in range(3):
        save(tmp_path / "in" / f"{index}.png", picture(index, 8, 8, "L"))
    shapes = {(0, False): (64, 64, 3), (None, False): (8, 8, 3), (0, None): (64, 64, 1),
              (16, None): (16, 16, 1), (None, True): (8, 8, 1)}  # fmt: skip
    for (size, grey), shape in shapes.items():
        assert opened(tmp_path / "in", tmp_path / "data", size=size, grey=grey).image_shape == shape


def test_pictures_are_looked_at_until_they_are_decided_and_once(folder, tmp_path, monkeypatch):
    seen = []
    look = pictures._side_and_grey
    monkeypatch.setattr(pictures, "THREADS", 2)
    monkeypatch.setattr(pictures, "_side_and_grey", lambda *args: seen.append(args) or look(*args))
    save(folder / "c.png", picture(0, 9, 9))
    for _ in range(2):
        assert opened(folder, tmp_path / "data", size=None, grey=None).image_shape == (64, 64, 3)
    assert len(seen) == 2
    save(folder / "c.png", picture(1, 9, 9))
    opened(folder, tmp_path / "data", size=None, grey=None)
    assert len(seen) == 4


def told_of(path, data_dir, capsys, **options):
    opened(path, data_dir, **options)
    return [line.removeprefix(f"bvae: {path}: ") for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["cat/1.png", "cat/2.png", "cat/3.png", "dog/.x.png"], ["no picture is in dog."]),
        (["cat/1.png", "cat/2.png", "cat/3.png"], []),
        (["train/n1/images/1.png", "train/n2/images/2.png", "val/images/3.png"],
         ["no picture to train on is of class images."]),
        (["train/1.png", "test/2.png", "masks/3.png"],
         ["taken for classes, as not all of them say train or test: masks, test, train."]),
        (["train/1.png", "plane/2.png", "car/3.png"], []),
    ],
)  # fmt: skip
def test_folders_that_may_not_be_meant_so_are_named(tmp_path, capsys, files, told):
    for name in files:
        save(tmp_path / "in" / name)
    assert told_of(tmp_path / "in", tmp_path / "data", capsys) == told


def test_small_pictures_are_named(tmp_path, capsys):
    for index, size in enumerate([(28, 40), (100, 12), (90, 70)]):
        save(tmp_path / "in" / f"{index}.png", picture(index, *size, mode="L"))
    small = "2 of 3 pictures are smaller than 64 pixels and are enlarged, the smallest has 12"
    path, data = tmp_path / "in", tmp_path / "data"
    assert told_of(path, data, capsys, size=None) == [f"{small}: see --image-size."]
    assert told_of(path, data, capsys, size=32, grey=True) == []


@pytest.mark.parametrize("size", [(40, 16), (16, 41), (7, 5), (500, 333)])
def test_any_size_is_cropped_to_its_centre(tmp_path, size):
    for index in range(3):
        save(tmp_path / "in" / f"{index}.png", picture(index, *size))
    got = images(opened(tmp_path / "in", tmp_path / "data")).astype(int)
    wanted = [by_hand(Image.open(tmp_path / "in" / f"{i}.png")) for i in range(3)]
    # By hand the middle is rounded to whole pixels of the resized picture.
    assert np.abs(got - wanted).mean() < (0.01 if size == (40, 16) else 6)
    # Left and right halves of the picture are left and right halves of the image.
    half = Image.new("RGB", (60, 20), "white")
    half.paste("black", (0, 0, 30, 20))
    image = pictures.decode(save(tmp_path / "half.png", half), (SIDE, SIDE, 3))[0]
    assert image[:, :7].max() < 10
    assert image[:, 9:].min() > 245


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.webp"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_formats_by_content_whatever_the_suffix(tmp_path, name, format):
    image = picture(0, 64, 64)
    path = save(tmp_path / name, image, format=format)
    got = pictures.decode(path, (64, 64, 3))[0].astype(int)
    assert np.abs(got - np.asarray(image)).mean() < (0.01 if format == "PNG" else 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(tmp_path, orientation, format):
    """The tag says how the stored picture must be turned; so we store it turned back."""
    seen = Image.new("RGB", (32, 32), "black")
    seen.paste("red", (0, 0, 16, 16))
    seen.paste("blue", (16, 0, 32, 16))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose's inverses
    stored = seen if orientation == 1 else seen.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a", stored, format=format, exif=exif, quality=95)
    got = pictures.decode(path, (32, 32, 3))[0].astype(int)
    assert np.abs(got - np.asarray(seen)).mean() < 8


def test_transparent_pixels_are_white_and_do_not_bleed(tmp_path):
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))  # red, but nobody sees it
    image.paste((0, 0, 0, 255), (0, 0, 32, 64))
    got = pictures.decode(save(tmp_path / "a.png", image), (16, 16, 3))[0]
    np.testing.assert_array_equal(got[:, 12:], 255)
    np.testing.assert_array_equal(got[:, :4], 0)
    np.testing.assert_array_equal(got[..., 0], got[..., 1])  # nowhere red
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    got = pictures.decode(save(tmp_path / "b.png", half), (16, 16, 1))[0]
    np.testing.assert_array_equal(got, 127)


def palette(transparent):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 10, 200, 30] + [0] * 762)
    image.paste(0, (0, 0, 8, 16))
    return image, ({"transparency": 0} if transparent else {})


def test_palettes_16_bits_and_cmyk(tmp_path):
    for transparent, first in ((False, 0), (True, 255)):
        image, options = palette(transparent)
        got = pictures.decode(save(tmp_path / "p.png", image, **options), (16, 16, 3))[0]
        np.testing.assert_array_equal(got[:, :8], first)
        np.testing.assert_array_equal(got[0, 15], [10, 200, 30])
    deep = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    got = pictures.decode(save(tmp_path / "d.png", Image.fromarray(deep)), (16, 16, 1))[0]
    np.testing.assert_array_equal(got.ravel(), np.arange(256))
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    got = pictures.decode(save(tmp_path / "c.jpg", inks, quality=100), (16, 16, 3))[0].astype(int)
    assert np.abs(got - [255, 0, 0]).max() < 5
    bits = Image.new("1", (16, 16), 1)
    assert pictures.decode(save(tmp_path / "b.png", bits), (16, 16, 1))[0].min() == 255


def grey_png(pixels, depth, colour=0, transparent=()):
    """A PNG of any depth, with the transparent colour that its tRNS names."""
    packed = {16: pixels.astype(">u2"), 8: pixels.astype("u1"), 4: pixels[:, ::2] * 17}[depth]
    lines = b"".join(b"\0" + line.astype(packed.dtype if depth > 4 else "u1").tobytes()
                     for line in packed.reshape(len(pixels), -1))  # fmt: skip
    head = struct.pack(">IIBBBBB", *pixels.shape[1::-1], depth, colour, 0, 0, 0)
    known = [(b"IHDR", head), (b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)),
             (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in known
        if body or kind == b"IEND"
    )


@pytest.mark.parametrize(
    ("depth", "colour", "left", "right", "seen"),
    [(16, 0, 10_000, 50_000, 195), (8, 0, 40, 200, 200), (4, 0, 1, 9, 153),
     (16, 2, 10_000, 50_000, 195)],
)  # fmt: skip
def test_a_transparent_colour_in_the_depth_of_the_file(tmp_path, depth, colour, left, right, seen):
    pixels = np.full((8, 8), left, np.uint16)
    pixels[:, 4:] = right
    parts = 3 if colour else 1
    deep = np.stack([pixels] * 3, axis=-1) if colour else pixels
    (tmp_path / "a.png").write_bytes(grey_png(deep, depth, colour, [left] * parts))
    for channels in (1, 3):
        got = pictures.decode(tmp_path / "a.png", (8, 8, channels))[0]
        np.testing.assert_array_equal(got[:, :4], 255)
        np.testing.assert_array_equal(got[:, 4:], seen)


def test_a_transparent_colour_is_no_colour_of_the_picture(tmp_path):
    pixels = np.full((8, 8, 3), 40_000, np.uint16)
    pixels[:4] = magenta = [60_000, 0, 60_000]
    (tmp_path / "a.png").write_bytes(grey_png(pixels, 16, 2, magenta))
    assert pictures.find_form([tmp_path / "a.png"]) == (8, True)


@pytest.mark.parametrize("size", [(1000, 800), (200, 160), (70, 65)])
def test_a_large_jpeg_decoded_in_part_is_nearly_the_same(tmp_path, size):
    noise = np.random.default_rng(0).integers(0, 256, (20, 25, 3), np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(noise).resize(size), quality=95)
    got = pictures.decode(path, (32, 32, 3))[0].astype(int)
    whole = ImageOps.fit(Image.open(path), (32, 32), Image.Resampling.LANCZOS)
    assert np.abs(got - np.asarray(whole)).mean() < 2


def test_subfolders_are_a_factor(tmp_path):
    for name in ("dog/2.png", "cat/x/1.png", "cat/9.png", "dog/1.png", "bird/1.jpg"):
        save(tmp_path / "in" / name, picture(sum(map(ord, name))), quality=95)
    dataset = opened(tmp_path / "in", tmp_path / "data")
    assert (dataset.factor_names, dataset.factor_sizes) == (("class",), (3,))
    assert dataset.classes == ("bird", "cat", "dog")
    assert np.asarray(dataset.labels).tolist() == [[0], [1], [1], [2], [2]]
    assert not dataset.grid
    wanted = by_hand(Image.open(tmp_path / "in" / "cat" / "9.png"))
    assert_near(images(dataset)[1], wanted)


def plain(path, names):
    """Small grey pictures, each of one level of its own."""
    for index, name in enumerate(names):
        save(path / name, Image.new("L", (8, 8), 17 + index))
    return opened(path, path.parent / "data", size=8, grey=True)


def classes(dataset):
    return np.asarray(dataset.labels)[:, 0].tolist()


@pytest.mark.parametrize(
    "names",
    [
        [str(10 * k) for k in range(12)],
        ["-30", "-5", "0", "0.25", "0.5", "10"],
        ["angle_-90", "angle_-10", "angle_10", "angle_90"],
        ["5deg", "10deg", "100deg"],
        ["2024-02-10", "2024-10-02", "2024-11-03"],
        ["img-1", "img-2", "img-10"],
        ["cat", "dog", "été", "猫2", "猫10"],
    ],
    ids=lambda names: names[0],
)
def test_classes_are_in_the_order_of_the_numbers_in_their_names(tmp_path, names):
    dataset = plain(tmp_path / "in", [f"{name}/a.png" for name in names])
    assert dataset.factor_sizes == (len(names),)
    # Pictures are in the order of the texts of their names.
    assert classes(dataset) == [names.index(name) for name in sorted(names, key="{}/".format)]


CAT, DOG = 0, 1
SPLITS = {
    "train, test": (
        ["test/cat/1.png", "test/dog/2.png", "train/cat/3.png", "train/dog/4.png"],
        [CAT, DOG, CAT, DOG],
        [0, 1],
    ),
    "validation is not the test": (
        ["test/cat/1.png", "train/dog/2.png", "val/cat/3.png"],
        [CAT, DOG, CAT],
        [0],
    ),
    "but where there is no other": (
        ["Training/cat/1.png", "Training/dog/2.png", "Validation/dog/3.png"],
        [CAT, DOG, DOG],
        [2],
    ),
    "below what all share": (
        ["data/images/test/x/cat/1.png", "data/images/test/x/dog/2.png",
         "data/images/train/x/dog/3.png"],
        [CAT, DOG, DOG],
        [0, 1],
    ),
    "without classes": (["test/1.png", "train/2.png", "train/3.png"], None, [0]),
    "classes that all share a folder": (
        ["all/cat/1.png", "all/cat/2.png", "all/dog/3.png"], [CAT, CAT, DOG], None,
    ),
    "train is a vehicle": (["plane/1.png", "train/2.png", "train/3.png"], [0, 1, 1], None),
    "two that say no split": (["test/1.png", "val/2.png", "val/3.png"], [0, 1, 1], None),
}  # fmt: skip


@pytest.mark.parametrize("name", SPLITS)
def test_folders_of_a_published_split_are_no_classes(tmp_path, name):
    files, wanted, tested = SPLITS[name]
    dataset = plain(tmp_path / "in", files)
    assert (None if dataset.labels is None else classes(dataset)) == wanted
    published = dataset.published_test
    assert (None if published is None else published.tolist()) == tested


def test_a_published_test_set_without_pictures_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "in" / "test" / "cat").mkdir(parents=True)
    (tmp_path / "in" / "test" / "cat" / "0.png").write_text("x")
    dataset = plain(tmp_path / "in", ["test/cat/1.png", "test/emu/2.png", "train/cat/3.png"])
    assert classes(dataset) == [0, 1, 0]
    np.testing.assert_array_equal(dataset.published_test, [0, 1])
    told = capsys.readouterr().err.splitlines()
    assert told[1] == f"bvae: {tmp_path / 'in'}: no picture to train on is of class emu."


def test_one_subfolder_is_no_factor(tmp_path):
    for index in range(3):
        save(tmp_path / "in" / "all" / f"{index}.png")
    assert opened(tmp_path / "in", tmp_path / "data").factor_names == ()


def test_links_are_followed_once_and_named_where_they_lead_out(tmp_path, capsys):
    for index in range(3):
        save(tmp_path / "elsewhere" / "deep" / f"{index}.png")
    save(tmp_path / "in" / "own" / "0.png")
    (tmp_path / "in" / "again").symlink_to("own")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "in")
    assert opened(tmp_path / "in", tmp_path / "data").size == 4
    told = f"pictures come by links from elsewhere: link to {tmp_path / 'elsewhere'}."
    assert capsys.readouterr().err == f"bvae: {tmp_path / 'in'}: {told}\n"


def test_decoded_once_until_something_changes(folder, tmp_path, monkeypatch):
    data = tmp_path / "data"
    first = opened(folder, data)
    before = images(first).copy()
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode_all", None)  # must not be called
        again = opened(folder, data)
        np.testing.assert_array_equal(images(again), before)
        assert again.version == first.version
    os.utime(folder / "b.png", ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode_all", None)
        with pytest.raises(TypeError):
            opened(folder, data)
    # The same pixels are the same version.
    assert opened(folder, data).version == first.version
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode_all", None)
        opened(folder, data)
    save(folder / "b.png", picture(77))
    assert opened(folder, data).version != first.version
    (folder / "b.png").unlink()
    assert opened(folder, data).size == 4
    assert len(list(data.iterdir())) == 1  # the old one is gone
    opened(folder, data, grey=True)
    assert len(list(data.iterdir())) == 2
    np.testing.assert_array_equal(images(first), before)  # whoever reads it still can


def test_a_picture_replaced_by_one_of_the_same_size_and_time(folder, tmp_path):
    before = opened(folder, tmp_path / "data").version
    path = save(folder / "b.png", Image.new("L", (20, 30), 10), compress_level=0)
    first, status = opened(folder, tmp_path / "data").version, path.stat()
    save(path, Image.new("L", (20, 30), 200), compress_level=0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert len({before, first, opened(folder, tmp_path / "data").version}) == 3


def test_several_threads_and_chunks_are_as_one(tmp_path, monkeypatch):
    files = [save(tmp_path / f"{i}.png", picture(i)) for i in range(23)]
    files[5].write_bytes(b"")
    whole = list(pictures.decode_all(files, (SIDE, SIDE, 3), threads=1))
    monkeypatch.setattr(pictures, "MOST_PICTURES", 4)
    parts = list(pictures.decode_all(files, (SIDE, SIDE, 3), threads=4))
    assert (len(whole), len(parts)) == (1, 6)
    np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), whole[0][1])
    assert [i for p in parts for i in p[0]] == whole[0][0] == [i for i in range(23) if i != 5]
    assert {5: "empty"} == whole[0][2] == parts[1][2]


def test_ctrl_c_leaves_nothing_half(folder, tmp_path, monkeypatch):
    data, decode_all = tmp_path / "data", module.decode_all

    def interrupted(*args):
        for number, part in enumerate(decode_all(*args)):
            if number == 1:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(pictures, "MOST_PICTURES", 2)
    monkeypatch.setattr(pictures, "THREADS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened(folder, data)
    assert list(data.iterdir()) == []
    assert decode_all is module.decode_all
    assert opened(folder, data).size == 5


def test_a_damaged_prepared_set_is_made_anew_or_named(folder, tmp_path):
    data = tmp_path / "data"
    before = images(opened(folder, data)).copy()
    (directory,) = data.iterdir()
    (directory / "meta.json").write_text("{")
    np.testing.assert_array_equal(images(opened(folder, data)), before)
    (directory / "images.npy").write_bytes(b"x")
    with pytest.raises(UserError, match=r"is damaged .*: delete it"):
        opened(folder, data)


def png(width, height, data=b""):
    """A PNG file of that size, whatever it holds."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def file_bytes(format="PNG", image=None, **options):
    file = io.BytesIO()
    (image or picture(0, 200, 200)).save(file, format, **options)
    return file.getvalue()


BROKEN = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am no picture", "not PNG, JPEG or WebP"),
    "cut png": (file_bytes()[:-2000], "truncated"),
    "cut jpeg": (file_bytes("JPEG")[:-600], "truncated"),
    "cut webp": (file_bytes("WEBP")[:-100], "."),
    "header alone": (file_bytes()[:20], "."),
    "flipped": (file_bytes()[:300] + b"\0" * 50 + file_bytes()[350:], "."),
    "bomb": (png(100_000, 100_000), "more than 89478485 pixels"),
    "large": (png(10_000, 9_000), "more than 89478485 pixels"),
    "no pixels": (png(0, 0), "."),
    "no data": (png(10, 10), "."),
    "gif": (file_bytes("GIF"), "not PNG, JPEG or WebP"),
    "tiff": (file_bytes("TIFF"), "not PNG, JPEG or WebP"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not PNG"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures_are_named_and_left_out(folder, tmp_path, capsys, name):
    content, reason = BROKEN[name]
    (folder / "d.png").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = opened(folder, tmp_path / "data")
    assert dataset.size == 4
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    start = f"bvae: {folder}: 1 of 5 pictures cannot be read and are left out: d.png ("
    assert told.startswith(start)
    assert re.search(rf"d\.png \(.*{reason}", told), told
    assert_near(images(dataset)[1], by_hand(Image.open(folder / "c.png")))


def test_only_five_of_many_are_named(folder, tmp_path, capsys):
    for index in range(10):
        save(folder / f"good{index}.png")
    for index in range(8):
        (folder / f"z{index}.png").write_text("x")
    opened(folder, tmp_path / "data")
    told = capsys.readouterr().err
    assert "8 of 23 pictures" in told
    assert "z4.png" in told
    assert "z5.png" not in told
    assert told.endswith("and 3 more.\n")


def refused(path, data_dir, match):
    with pytest.raises(UserError, match=match) as caught:
        opened(path, data_dir)
    assert "\n" not in str(caught.value)
    assert not data_dir.exists() or list(data_dir.iterdir()) == []


def test_refusals(folder, tmp_path):
    data = tmp_path / "data"
    refused(tmp_path / ("x" * 300), data, "got nothing there")
    refused(tmp_path / "none", data, "got nothing there, wanted a folder of pictures")
    refused(folder / "b.png", data, "got a file, wanted a folder of pictures")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", data, r"got no pictures, wanted files \.png")
    (tmp_path / "empty" / "a.txt").write_text("x")
    refused(tmp_path / "empty", data, "got no pictures")
    for name in ("c.png", "d.png", "e.png"):
        (folder / name).write_text("x\ny")
    refused(folder, data, r"got 3 pictures that cannot be read and 2 that can: c\.png \(not PNG")
    (folder / "c.png").unlink()
    refused(folder, data, "got 2 pictures that can be read, wanted at least 3: d.png")
    save(folder / "sub" / "a.png")
    refused(folder, data, r"beside folders and in them \(as sub, and beside it b\.png\)")
    twelve_bits = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    for index in range(3):
        save(tmp_path / "deep" / f"{index}.png", Image.fromarray(twelve_bits))
    refused(tmp_path / "deep", data, r"lightest pixel is 16 of 255.*12 bits .* in 16 by 16")
    for index in range(3):
        save(tmp_path / "in" / "a" / f"{index}.png")
    (tmp_path / "in" / "b").mkdir()
    (tmp_path / "in" / "b" / "0.png").write_text("x")
    refused(tmp_path / "in", data, "none of the pictures in b can be read")


def test_strange_names_stay_on_one_line(tmp_path, capsys):
    path = tmp_path / "in"
    for index in range(3):
        save(path / f"{index}.png")
    (path / "evil\n\x1b[31m.png").write_text("x")
    with open(os.fsencode(path) + b"/\xff.png", "wb"):
        pass
    assert opened(path, tmp_path / "data").size == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "\x1b" not in told


def test_links_to_nowhere_and_pipes(tmp_path, capsys):
    path = tmp_path / "in"
    for index in range(3):
        save(path / f"{index}.png")
    (path / "a.png").symlink_to("nowhere.png")
    os.mkfifo(path / "pipe.png")
    assert opened(path, tmp_path / "data").size == 3
    assert "1 of 4 pictures" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(folder, tmp_path):
    (folder / "closed").mkdir(0)
    refused(folder, tmp_path / "data", "closed: cannot be read")
    refused(folder / "closed" / "x", tmp_path / "data", "got nothing there")
    (folder / "closed").chmod(0o700)
    (folder / "b.png").chmod(0)
    assert opened(folder, tmp_path / "data").size == 4


def test_a_place_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        opened(folder, tmp_path / "file" / "data")


def test_the_bar_shows_pictures(folder, tmp_path, capsys):
    open_folder(folder, image_size=8, grey=True, data_dir=tmp_path / "data", progress=True)
    told = capsys.readouterr().err
    assert "reading" in told
    assert "5/5" in told
    assert "images/s" in told or "s/ images" in told
    assert sys.stderr is not None
