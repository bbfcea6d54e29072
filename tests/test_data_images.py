"""dataset=image_folder and dataset=arrays on real files: layouts, formats, orientation, and what is broken."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.data.images import Arrays, ImageFolder, to_pixels


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def fill(folder: Path, count: int, seed: int, suffix: str = ".png") -> None:
    for index in range(count):
        for offset, kind in enumerate(("ant", "bee")):
            path = folder / kind / f"{index}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(1000 * seed + 2 * index + offset).save(path)


def sizes(splits: zoo.Splits) -> tuple[int, ...]:
    return tuple(len(split) for split in (splits.train, splits.validation, splits.test))


def message(dataset: zoo.Dataset) -> str:
    with pytest.raises(zoo.DataError) as caught:
        zoo.load(dataset)
    return str(caught.value)


def test_split_and_class_folders_are_read(tmp_path):
    for seed, (split, count) in enumerate({"train": 8, "val": 3, "test": 4}.items()):
        fill(tmp_path / split, count, seed, (".jpg", ".png", ".webp")[seed])
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / "ant" / ".hidden.jpg").write_text("no picture")
    splits = zoo.load(ImageFolder(str(tmp_path), size=16))
    assert sizes(splits) == (16, 6, 8)
    assert splits.classes == ("ant", "bee")
    assert splits.test.examples.shape == (8, 16, 16, 3)
    assert splits.test.examples.dtype == np.uint8
    assert splits.test.labels.tolist() == [0] * 4 + [1] * 4
    assert zoo.load(ImageFolder(str(tmp_path), size=8, channels=1)).test.examples.shape == (8, 8, 8, 1)
    assert zoo.load(ImageFolder(str(tmp_path), size=16)).fingerprint == splits.fingerprint


def test_without_a_test_folder_validation_is_the_test_and_without_both_the_whole_is_cut(tmp_path):
    fill(tmp_path / "a" / "train", 20, 0)
    fill(tmp_path / "a" / "val", 4, 1, ".bmp")
    splits = zoo.load(ImageFolder(str(tmp_path / "a"), size=8))
    assert sizes(splits) == (36, 4, 8)
    fill(tmp_path / "b", 20, 2, ".gif")
    assert sizes(zoo.load(ImageFolder(str(tmp_path / "b"), size=8))) == (28, 4, 8)


def test_the_middle_square_is_taken_in_proportion():
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste((255, 0, 0), (100, 0, 200, 100))
    for pixels in (to_pixels(wide, 10, 3), np.rot90(to_pixels(wide.rotate(90, expand=True), 10, 3))):
        assert pixels[:, 1:-1].reshape(-1, 3).tolist() == [[255, 0, 0]] * 80, "but for the blended edges"
        assert pixels[:, [0, -1], 0].min() > 200


def test_pictures_are_turned_upright(tmp_path):
    upright = Image.new("RGB", (64, 64), "black")
    upright.paste((255, 255, 255), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: turned by 180 degrees
    upright.rotate(180).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        pixels = to_pixels(image, 8, 1)[..., 0]
    assert pixels[0].tolist() == [255] * 8
    assert pixels[-1].tolist() == [0] * 8


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (9, 9), (0, 0, 0, 0)), 255),
        (Image.new("LA", (9, 9), (0, 128)), 127),
        (Image.new("L", (9, 9), 77), 77),
        (Image.new("1", (9, 9), 1), 255),
        (Image.new("CMYK", (9, 9), (0, 0, 0, 255)), 0),
        (Image.fromarray(np.full((9, 9), 32768, np.uint16)), 128),
        (Image.fromarray(np.full((9, 9), 65535, np.int32)), 255),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_every_mode_becomes_eight_bits(image, expected):
    for channels in (1, 3):
        pixels = to_pixels(image, 4, channels)
        assert pixels.shape == (4, 4, channels)
        assert np.abs(pixels.astype(int) - expected).max() <= 1


def bomb(path: Path) -> None:
    """A PNG of a few bytes that says it is 50,000 pixels wide and high."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def test_all_broken_pictures_are_listed_or_left_out(tmp_path):
    fill(tmp_path, 20, 0, ".jpg")
    whole = (tmp_path / "ant" / "0.jpg").read_bytes()
    (tmp_path / "ant" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "ant" / "text.png").write_text("hello")
    (tmp_path / "bee" / "empty.jpg").write_bytes(b"")
    bomb(tmp_path / "bee" / "bomb.png")
    text = message(ImageFolder(str(tmp_path), size=8))
    lines = text.splitlines()
    assert lines[0] == "4 of 44 pictures cannot be read. Repair or remove them, or say skip_broken=true:"
    assert [line.partition(": ")[0].rpartition("/")[2] for line in lines[1:]] == [
        "cut.jpg",
        "text.png",
        "bomb.png",
        "empty.jpg",
    ]
    assert "truncated" in lines[1]
    assert "pixels; refused" in lines[3]
    assert "an empty file" in lines[4]
    splits = zoo.load(ImageFolder(str(tmp_path), size=8, skip_broken=True))
    assert sizes(splits) == (28, 4, 8)
    assert "Class 'ant', folder ant: 2 broken pictures were left out." in splits.notes
    assert "Class 'bee', folder bee: 2 broken pictures were left out." in splits.notes


def test_a_long_list_of_broken_pictures_is_cut_short(tmp_path):
    fill(tmp_path, 3, 0)
    for index in range(13):
        (tmp_path / "ant" / f"x{index}.jpg").write_text("no")
    lines = message(ImageFolder(str(tmp_path))).splitlines()
    assert (len(lines), lines[-1]) == (12, "… and 3 more")


def test_bad_folders_are_named(tmp_path):
    assert "root=photos" in message(ImageFolder())
    assert "No file or folder" in message(ImageFolder(str(tmp_path / "nowhere")))
    (tmp_path / "file").write_text("")
    assert "is a file" in message(ImageFolder(str(tmp_path / "file")))
    assert "No pictures under" in message(ImageFolder(str(tmp_path)))
    fill(tmp_path / "test", 2, 0)
    fill(tmp_path / "trian", 2, 1)
    assert "but no folder train. Did you mean 'trian'?" in message(ImageFolder(str(tmp_path)))
    fill(tmp_path / "train", 4, 1)
    fill(tmp_path / "test2" / "wasp", 1, 3)
    (tmp_path / "test2" / "wasp" / "ant").rename(tmp_path / "test" / "wasp")
    assert "train split (8 examples" in message(ImageFolder(str(tmp_path)))
    (tmp_path / "val").mkdir()
    (tmp_path / "dev").mkdir()
    assert "more than one could be the validation split: dev/ and val/" in message(ImageFolder(str(tmp_path)))


def classes_of(root: Path, **options) -> tuple[str, ...]:
    return zoo.load(ImageFolder(str(root), size=8, **options)).classes


def test_a_class_without_one_picture_is_refused_with_what_lies_there(tmp_path):
    def added(name: str, **files: bytes) -> str:
        root = tmp_path / name
        fill(root / "train", 6, 0)
        fill(root / "test", 3, 1)
        for file, content in files.items():
            path = root / "train" / "ox" / file.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return message(ImageFolder(str(root), size=8, skip_broken=True))

    tif = added("tif", a_dot_tif=b"x", b_dot_TIF=b"x")
    assert "Class 'ox': no picture in" in tif
    assert "2 files of other kinds (.tif 2)" in tif
    assert "16 files in folders below it (left)" in added("nested", **{f"left__{i}_dot_png": b"x" for i in range(16)})
    assert "It holds no files." in added("empty", _dot_keep=b"", Thumbs_dot_db=b"x")
    assert "none of its 2 pictures" in added("broken", a_dot_png=b"x", b_dot_jpg=b"")


def test_what_is_passed_over_in_a_class_folder_is_noted_with_class_folder_and_count(tmp_path):
    fill(tmp_path / "train", 6, 0)
    fill(tmp_path / "test", 3, 1)
    for name in ("a.tif", "b.tiff", "notes.txt", "README", "deeper/c.png"):
        (tmp_path / "train" / "ant" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "train" / "ant" / name).write_bytes(b"x")
    (tmp_path / "extra").mkdir()
    notes = zoo.load(ImageFolder(str(tmp_path), size=8)).notes
    assert (
        "Class 'ant', folder train/ant: passed over 4 files of other kinds (.tif 1, .tiff 1, .txt 1, no suffix 1) and "
        "1 files in folders below it (deeper)."
    ) in notes
    assert "Not read, since its name is that of no split: extra/." in notes


@pytest.mark.parametrize(
    ("train", "test"), [("training", "testing"), ("Train", "Test"), ("TRAIN", "eval"), ("train", "validate")]
)
def test_split_folders_go_by_several_names_in_any_capitals(tmp_path, train, test):
    fill(tmp_path / train, 8, 0)
    fill(tmp_path / test, 4, 1)
    assert sizes(zoo.load(ImageFolder(str(tmp_path), size=8))) == (14, 2, 8)


def test_a_folder_that_may_be_the_test_is_not_ignored(tmp_path):
    fill(tmp_path / "train", 8, 0)
    fill(tmp_path / "holdout", 4, 1)
    assert "there are examples also in: holdout/" in message(ImageFolder(str(tmp_path)))


def test_folders_that_hold_no_classes_are_noted(tmp_path):
    fill(tmp_path / "train", 8, 0)
    fill(tmp_path / "val", 4, 1)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text("x")
    (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
    splits = zoo.load(ImageFolder(str(tmp_path), size=8))
    assert sizes(splits) == (14, 2, 8)
    assert "Not read, since its name is that of no split: annotations/." in splits.notes


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, 8, 0)
    (tmp_path / "ant").rename(tmp_path / "train")
    assert classes_of(tmp_path) == ("bee", "train")


SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("strays", [("train",), ("test",), SPLITS, (*SPLITS, ".")])
def test_pictures_beside_the_class_folders_of_a_split_are_noted_and_change_nothing(tmp_path, strays):
    for seed, (split, count) in enumerate(zip(SPLITS, (8, 3, 4), strict=True)):
        fill(tmp_path / split, count, seed)
    before = zoo.load(ImageFolder(str(tmp_path), size=8))
    for seed, split in enumerate(strays):
        picture(90 + seed).save(tmp_path / split / "sheet.png")
        picture(95 + seed).save(tmp_path / split / "sheet 2.png")
    after = zoo.load(ImageFolder(str(tmp_path), size=8))
    assert (after.classes, sizes(after), after.fingerprint) == (("ant", "bee"), (16, 6, 8), before.fingerprint)
    places = [f" of {split}/" if split != "." else "" for split in strays]
    told = {f"Passed over: 2 pictures lie beside the class folders{place} (sheet 2.png)." for place in places}
    assert set(after.notes) - set(before.notes) == told


def test_pictures_beside_classes_without_splits_are_noted(tmp_path):
    fill(tmp_path, 8, 0)
    picture(90).save(tmp_path / "sheet.png")
    splits = zoo.load(ImageFolder(str(tmp_path), size=8))
    assert splits.classes == ("ant", "bee")
    assert "Passed over: 1 picture lies beside the class folders (sheet.png)." in splits.notes


def test_a_split_whose_pictures_lie_in_no_class_folder_is_refused_by_name(tmp_path):
    fill(tmp_path / "train", 8, 0)
    (tmp_path / "test").mkdir()
    picture(90).save(tmp_path / "test" / "1.png")
    told = message(ImageFolder(str(tmp_path), size=8))
    assert "pictures but no class folder with pictures in test/." in told
    assert "remove" not in told
    (tmp_path / "val").mkdir()
    picture(91).save(tmp_path / "val" / "1.png")
    told = message(ImageFolder(str(tmp_path), size=8))
    assert "If test/ and val/ should be" in told or "If val/ and test/ should be" in told


def test_a_folder_that_may_be_a_split_or_a_class_is_refused(tmp_path):
    fill(tmp_path / "train", 8, 0)
    picture(90).save(tmp_path / "train" / "1.png")
    for name in ("car", "dog"):
        (tmp_path / name).mkdir()
        picture(91).save(tmp_path / name / "1.png")
    told = message(ImageFolder(str(tmp_path), size=8))
    assert "train may be a split or a class" in told
    assert "Is it a split, then move car/ and dog/ elsewhere." in told
    for name in range(20):
        (tmp_path / f"b{name}").mkdir()
        picture(92).save(tmp_path / f"b{name}" / "1.png")
    assert "b17/ and 12 more elsewhere" in message(ImageFolder(str(tmp_path), size=8))


def test_a_folder_that_may_be_a_split_or_a_class_is_read_once_the_named_ones_are_moved(tmp_path):
    fill(tmp_path / "train", 12, 0)
    picture(90).save(tmp_path / "train" / "1.png")
    (tmp_path / "notes").mkdir()
    assert classes_of(tmp_path) == ("ant", "bee")


def test_labels_of_one_column_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 5, 5), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=(np.arange(40) % 2)[:, None])
    assert sizes(zoo.load(Arrays(str(tmp_path / "a.npz")))) == (28, 4, 8)


def test_class_folders_that_differ_in_capitals_are_refused_unless_named(tmp_path):
    fill(tmp_path, 8, 0)
    for index in range(8):
        path = tmp_path / "Ant" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        picture(500 + index).save(path)
    assert "the labels 'Ant' (8 times) and 'ant' (8 times)" in message(ImageFolder(str(tmp_path), size=8))
    assert classes_of(tmp_path, classes=["ant", "Ant", "bee"]) == ("ant", "Ant", "bee")


@pytest.mark.parametrize(
    ("train", "test"), [("training", "testing"), ("Train", "TEST"), ("train", "dev"), ("", "test")]
)
def test_arrays_of_a_file_go_by_several_names(tmp_path, train, test):
    random, path = np.random.default_rng(0), tmp_path / "a.npz"
    made = {}
    for prefix, count in ((train, 20), (test, 8)):
        start = f"{prefix}_" if prefix else ""
        made[f"{start}images"] = random.integers(0, 256, (count, 5, 5), dtype=np.uint8)
        made[f"{start}labels"] = np.arange(count) % 2
    np.savez(path, **made)
    assert sizes(zoo.load(Arrays(str(path)))) == (18, 2, 8)


def test_arrays_that_may_be_the_test_are_not_ignored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 5, 5), dtype=np.uint8)
    path = tmp_path / "a.npz"
    np.savez(path, train_images=pixels, train_labels=np.arange(20) % 2, holdout_images=pixels)
    assert "there are examples also in: holdout_images" in message(Arrays(str(path)))


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"test_imgs": "pixels", "test_labels": "labels"}, "no array 'test_images'"),
        ({"images_test": "pixels", "labels_test": "labels"}, "there are examples also in: images_test"),
        ({"x_test": "pixels", "y_test": "labels"}, "there are examples also in: x_test"),
    ],
)
def test_arrays_of_a_test_by_another_name_are_not_ignored(tmp_path, named, told):
    made = {"pixels": np.random.default_rng(0).integers(0, 256, (20, 5, 5), np.uint8), "labels": np.arange(20) % 2}
    path = tmp_path / "a.npz"
    np.savez(path, train_images=made["pixels"], train_labels=made["labels"],
             **{name: made[which] for name, which in named.items()})  # fmt: skip
    assert told in message(Arrays(str(path)))


def test_other_arrays_are_no_reason_to_refuse(tmp_path):
    pixels, labels = np.random.default_rng(0).integers(0, 256, (40, 5, 5), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "a.npz", images=pixels, labels=labels, coarse_labels=labels, weights=np.ones((40, 2)))
    assert sizes(zoo.load(Arrays(str(tmp_path / "a.npz")))) == (28, 4, 8)


RANDOM = np.random.default_rng(1)


@pytest.mark.parametrize(
    "extra",
    [
        {"mean": RANDOM.random((8, 8, 3))},
        {"masks": RANDOM.random((40, 5, 5)) > 0.5},
        {"masks": RANDOM.integers(0, 4, (40, 5, 5), np.uint8)},
        {"boxes": RANDOM.random((40, 2, 4))},
        {"embeddings": RANDOM.random((40, 5, 16)), "fine_labels": np.arange(40) % 4},
        {"num_images": np.array(40)},
        {"val_images": RANDOM.integers(0, 256, (8, 5, 5), np.uint8), "val_labels": np.arange(8) % 2,
         "val_boxes": RANDOM.random((8, 2, 4))},
    ],
)  # fmt: skip
def test_arrays_that_are_no_test_images_are_noted(tmp_path, extra):
    pixels, labels = RANDOM.integers(0, 256, (40, 5, 5), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "a.npz", images=pixels, labels=labels, **extra)
    splits = zoo.load(Arrays(str(tmp_path / "a.npz")))
    assert sizes(splits) == ((36, 4, 8) if "val_images" in extra else (28, 4, 8))
    unread = [name for name in extra if name not in ("fine_labels", "val_images", "val_labels")]
    told = [note for note in splits.notes if note.startswith("Not read")]
    assert told == [f"Not read, since its name is that of no split: {name}." for name in unread]


@pytest.mark.parametrize("name", ["more", "test_set", "holdout", "eval"])
@pytest.mark.parametrize("count", [8, 40])
def test_arrays_that_may_be_the_test_are_told_by_name_or_by_likeness(tmp_path, name, count):
    pixels, labels = RANDOM.integers(0, 256, (40, 5, 5), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "a.npz", images=pixels, labels=labels, **{name: pixels[:count]})
    if (name, count) == ("more", 40):
        assert sizes(zoo.load(Arrays(str(tmp_path / "a.npz")))) == (28, 4, 8)
    else:
        assert f"examples also in: {name}" in message(Arrays(str(tmp_path / "a.npz")))


@pytest.mark.parametrize(
    ("arrays", "refused"),
    [
        ({"embeddings": RANDOM.random((8, 5, 16))}, False),
        ({"embeddings": RANDOM.random((8, 5, 16)), "labels": np.arange(8)}, False),
        ({"masks": RANDOM.integers(0, 2, (40, 5, 5), np.uint8)}, False),
        ({"images": RANDOM.random((8, 6, 6)), "labels": np.arange(8)}, True),
        ({"x": RANDOM.integers(0, 256, (8, 5, 5), np.uint8), "y": np.arange(8)}, True),
        ({"x": RANDOM.integers(0, 256, (40, 5, 5), np.uint8), "labels": np.arange(40)}, True),
        ({"x_test": RANDOM.random((40, 5, 5)), "y_test": np.arange(40)}, True),
    ],
)
def test_an_npz_beside_the_splits_is_the_test_on_evidence_only(tmp_path, arrays, refused):
    pixels, labels = RANDOM.integers(0, 256, (40, 5, 5), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "train.npz", images=pixels, labels=labels)
    np.savez(tmp_path / "more.npz", **arrays)
    if refused:
        assert "examples also in: more.npz" in message(Arrays(str(tmp_path)))
    else:
        splits = zoo.load(Arrays(str(tmp_path)))
        assert (sizes(splits), splits.notes) == (
            (28, 4, 8),
            ("Not read, since its name is that of no split: more.npz.",),
        )


@pytest.mark.parametrize("name", ["holdout.npz", "test.zip", "test.npy", "Eval.npz.txt"])
def test_an_npz_that_cannot_be_read_is_not_ignored(tmp_path, name):
    pixels, labels = np.random.default_rng(0).integers(0, 256, (40, 5, 5), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "train.npz", images=pixels, labels=labels)
    (tmp_path / name).write_bytes(b"no archive")
    told = message(Arrays(str(tmp_path)))
    assert "no test split can be read" in told
    assert name in told
    np.savez(tmp_path / "test.npz", images=pixels + 1, labels=labels)
    assert sizes(zoo.load(Arrays(str(tmp_path)))) == (36, 4, 40)


def test_arrays_of_texts_and_other_kinds_are_refused_in_plain_words(tmp_path):
    path = tmp_path / "a.npz"
    labels = np.arange(20) % 2
    for images in (np.array(["x"] * 20), np.zeros(20), np.array(3.0), np.zeros((20, 5, 5), "datetime64[s]")):
        np.savez(path, images=images, labels=labels)
        assert "images" in message(Arrays(str(path)))
    np.savez(path, images=np.zeros((20, 5, 5), np.uint8), labels=np.array([b"a", b"b"] * 10))
    assert "a bytes" in message(Arrays(str(path)))


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 10_000}, {"channels": 2}, {"test_fraction": 1.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(zoo.ConfigError, match=f"dataset.{next(iter(options))}="):
        ImageFolder("x", **options)


def images(count: int, seed: int = 0, shape: tuple[int, ...] = (6, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_arrays_come_in_one_pair_with_prefixes_or_in_files(tmp_path):
    labels = np.arange(60) % 3
    np.savez(tmp_path / "one.npz", images=images(60), labels=labels)
    one = zoo.load(Arrays(str(tmp_path / "one.npz")))
    assert sizes(one) == (42, 6, 12)
    assert one.classes == ("0", "1", "2")
    assert one.test.examples.shape == (12, 6, 5, 1)
    named = ["cat", "dog", "owl"]
    np.savez_compressed(
        tmp_path / "many.npz",
        train_images=images(30),
        train_labels=labels[:30],
        val_images=images(6, 1),
        val_labels=labels[:6],
        test_images=images(9, 2),
        test_labels=labels[:9],
        classes=np.array(named),
    )
    many = zoo.load(Arrays(str(tmp_path / "many.npz")))
    assert (sizes(many), many.classes) == ((30, 6, 9), tuple(named))
    for split, count in (("train", 30), ("validation", 6), ("test", 9)):
        seed = {"train": 0, "validation": 1, "test": 2}[split]
        np.savez(tmp_path / f"{split}.npz", images=images(count, seed), labels=np.array(named)[labels[:count]])
    for path in (tmp_path, tmp_path / "{split}.npz"):
        assert zoo.load(Arrays(str(path))).fingerprint == many.fingerprint
    assert zoo.load(Arrays(str(tmp_path), classes=["owl", "dog", "cat"])).test.labels[0] == 2


class Harmful:
    """Would touch a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_objects_in_an_npz_are_refused_and_not_run(tmp_path):
    harm = tmp_path / "harm"
    np.savez(tmp_path / "bad.npz", images=np.array([Harmful(harm)], dtype=object), labels=np.array([0]))
    assert "holds Python objects" in message(Arrays(str(tmp_path / "bad.npz")))
    np.array([Harmful(harm)], dtype=object).dump(tmp_path / "pickle.npz")
    assert "holds Python objects" in message(Arrays(str(tmp_path / "pickle.npz")))
    assert not harm.exists()


def test_bad_arrays_are_named(tmp_path):
    path = tmp_path / "a.npz"
    assert "path=images.npz" in message(Arrays())

    def saved(**arrays: np.ndarray) -> str:
        np.savez(path, **arrays)
        return message(Arrays(str(path)))

    good = {"images": images(30), "labels": np.arange(30) % 2}
    assert "no array 'images' or 'train_images'. It has: image, labels. Did you mean 'image'?" in saved(
        image=good["images"], labels=good["labels"]
    )
    assert "'images' has the shape (30, 6, 5) and 'labels' (29,)" in saved(**good | {"labels": np.arange(29) % 2})
    assert "float32, from" in saved(**good | {"images": images(30).astype(np.float32) / 255})
    assert "a.npz images[0]: the label is 0.5, a float" in saved(**good | {"labels": np.full(30, 0.5)})
    assert "outside the classes" in saved(**good, classes=np.array(["one"]))
    np.savez(path, **good)
    path.write_bytes(path.read_bytes()[:-40])
    assert "no whole npz file" in message(Arrays(str(path)))
    np.save(tmp_path / "single", images(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    assert "holds a single array" in message(Arrays(str(tmp_path / "single.npz")))


@pytest.mark.parametrize(
    ("dataset", "title"),
    [
        (ImageFolder("~/photos of bees/"), "image_folder-photos-of-bees"),
        (Arrays("/data/mnist/{split}.npz"), "arrays-mnist"),
        (Arrays("mnist.npz"), "arrays-mnist"),
        (Arrays("../.."), "arrays"),
    ],
)
def test_the_title_tells_the_files(dataset, title):
    assert dataset.title() == title
