"""Images out of the user's own files: a folder of pictures, or NumPy arrays."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.data import Data
from zoo.data.assembly import (
    WHOLE,
    Others,
    Raw,
    UserData,
    arranged,
    by_split,
    existing,
    locate,
    names_test,
    titled,
)
from zoo.data.labels import label_name
from zoo.data.litter import is_litter
from zoo.errors import DataError, did_you_mean
from zoo.models import Modality
from zoo.options import option

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
ENDS = ("_images", "_labels")
"""How the names of an npz's arrays end, behind the name of a split."""
NAMED = 10
"""How many broken images or folders a message names before it only counts."""


@dataclass
class ImageFolder(UserData):
    """Your own pictures: root/split/class/*.jpg (jpeg, png, bmp, gif, webp), with the class as the folder's name.

    The splits are the folders train, validation (valid, val, dev …) and test (testing, eval …), in any capitals.
    Without validation a tenth of train serves; without test, validation is the test. Without any of them (root/class/*)
    the whole is cut by the two fractions. Every picture is turned upright (EXIF), put on white where it is transparent,
    scaled to `size` at its short side and cropped to the middle square. Of an animation the first frame counts. What
    else lies in a class folder is noted, and so are pictures beside the class folders; a class folder without one
    picture is refused.
    """

    root: str = option("", "folder that holds train/, validation/ and test/, each with one folder a class")
    size: int = option(64, "height and width in pixels to which every picture is brought", ge=1, le=4096)
    channels: int = option(3, "3 for colour, 1 for grey", choices=(1, 3))
    skip_broken: bool = option(False, "leave broken pictures out, instead of stopping with a list of them")
    classes: list[str] = option([], "class folders in order; default: all there are, sorted")

    name: ClassVar[str] = "image_folder"
    modality: ClassVar[Modality] = "image"

    def title(self) -> str:
        """The name and what the files are called."""
        return titled(self.name, self.root)

    def read(self) -> Data:
        """Read every picture. Raises DataError naming the broken ones."""
        root = existing(self.root, "root", "photos")
        if not root.is_dir():
            raise DataError(f"root={self.root} is a file. Name the folder that holds the split or class folders.")
        folders, notes = _split_folders(root)
        by_class = {split: _class_folders(folder, root) for split, folder in folders.items()}
        notes += [note for found in by_class.values() for one in found if (note := one.passed_over(root))]
        splits = {split: [path for one in found for path in one.pictures] for split, found in by_class.items()}
        if not any(splits.values()):
            raise DataError(
                f"No pictures under {root}. Expected: {root.name}/train/<class>/*.jpg or {root.name}/<class>/*.jpg "
                f"({', '.join(SUFFIXES)})."
            )
        read = {split: self._decoded(paths, root) for split, paths in splits.items()}
        broken = {path: trouble for _, bad in read.values() for path, trouble in bad.items()}
        notes += self._left_out(sum(map(len, splits.values())), root, broken)
        for one in (one for found in by_class.values() for one in found):
            if broken.keys() >= set(one.pictures):
                raise DataError(
                    f"Class '{one.folder.name}': none of its {len(one.pictures)} pictures in {one.folder} can be read."
                    "\n"
                    f"The first: {broken[one.pictures[0]]}. Replace them, or remove the folder."
                )
        return self.assemble({split: raw for split, (raw, _) in read.items()}, self.classes, notes)

    def _decoded(self, paths: Sequence[Path], root: Path) -> tuple[Raw, dict[Path, str]]:
        """The whole pictures, and what is wrong with each broken one."""
        import numpy as np

        images = np.empty((len(paths), self.size, self.size, self.channels), np.uint8)
        whole: list[Path] = []
        broken: dict[Path, str] = {}
        for path, result in zip(paths, _decode_all(paths, self.size, self.channels), strict=True):
            if isinstance(result, str):
                broken[path] = result
            else:
                images[len(whole)] = result
                whole.append(path)
        names = [label_name(path.parent.name, lambda path=path: str(path)) for path in whole]  # type: ignore[misc]
        return Raw(images[: len(whole)], names, [str(path.relative_to(root)) for path in whole]), broken

    def _left_out(self, total: int, root: Path, broken: Mapping[Path, str]) -> list[str]:
        """A note for each class folder with broken pictures. Raises DataError unless they are to be skipped."""
        if not broken:
            return []
        if not self.skip_broken:
            listed = [f"{path}: {trouble}" for path, trouble in broken.items()]
            more = f"\n… and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
            raise DataError(
                f"{len(broken)} of {total} pictures cannot be read. Repair or remove them, or say skip_broken=true:\n"
                + "\n".join(listed[:NAMED])
                + more
            )
        return [
            f"Class '{folder.name}', folder {folder.relative_to(root)}: {count} broken pictures were left out."
            for folder, count in Counter(path.parent for path in broken).items()
        ]


def _split_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders of the splits that there are, arranged, and notes; the root itself when it holds the classes.

    A split's folder holds class folders, and a class's folder pictures: so a class may be called `train`. Pictures
    beside the class folders of a split belong to no class."""
    folders = _folders(root)
    found, others = by_split([(path.name, path) for path in folders], str(root), lambda path: f"{path.name}/")
    if not _are_splits(found, others, root):
        return {WHOLE: root}, _strays(root, root)
    if "train" not in found:
        raise DataError(
            f"{root} has {' and '.join(path.name for path in found.values())} but no folder train."
            f"{did_you_mean('train', [path.name for path in folders])}"
        )
    names = [f"{path.name}/" for path in others]
    examples = [f"{path.name}/" for path in others if _holds_classes(path)]
    arrangement, notes = arranged(found, Others(names, examples), str(root))
    return arrangement, [*notes, *_strays(root, root), *(n for path in found.values() for n in _strays(path, root))]


def _are_splits(found: Mapping[str, Path], others: Sequence[Path], root: Path) -> bool:
    """Whether the folders that go by the names of splits are splits; False: they are classes. Raises DataError where
    that cannot be told."""
    splits = [path for path in found.values() if _holds_classes(path)]
    classes = [path for path in found.values() if path not in splits and _ClassFolder.of(path).pictures]
    if splits and classes:
        raise DataError(
            f"{root}: class folders lie in {_all_of(splits)}, and pictures but no class folder with pictures in "
            f"{_all_of(classes)}.\nIf {_all_of(classes)} should be a split, sort the pictures into class folders; if "
            f"neither split nor class, move it elsewhere.\nIf all of these are classes, move the folders in "
            f"{_all_of(splits)} elsewhere."
        )
    beside = [path for path in others if _ClassFolder.of(path).pictures]
    if len(found) == 1 and splits and beside and _ClassFolder.of(splits[0]).pictures:
        raise DataError(
            f"{splits[0]} holds pictures and class folders, and beside it there are pictures in {_all_of(beside)}: "
            f"{splits[0].name} may be a split or a class.\n"
            f"Is it a split, then move {_all_of(beside)} elsewhere. Is it a class, then move the folders in it "
            "elsewhere."
        )
    return bool(found) and not classes


def _all_of(folders: Sequence[Path]) -> str:
    """The names of folders: whoever moves the one that is named has to move the others, too."""
    names = [f"{path.name}/" for path in folders[:NAMED]]
    if len(folders) > NAMED:
        names.append(f"{len(folders) - NAMED:,} more")
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _holds_classes(folder: Path) -> bool:
    """Whether a class folder with a picture lies in it."""
    return any(_ClassFolder.of(inner).pictures for inner in _folders(folder))


def _strays(folder: Path, root: Path) -> list[str]:
    """A note of the pictures that lie beside the class folders."""
    strays = _ClassFolder.of(folder).pictures
    where = "" if folder == root else f" of {folder.relative_to(root)}/"
    counted = "1 picture lies" if len(strays) == 1 else f"{len(strays)} pictures lie"
    return [f"Passed over: {counted} beside the class folders{where} ({strays[0].name})."] if strays else []


def _folders(root: Path) -> list[Path]:
    """The folders in a folder, by name, but for hidden ones and what programs leave."""
    inside = (path for path in sorted(root.iterdir()) if path.is_dir())
    return [path for path in inside if not path.name.startswith(".") and not is_litter(path.name)]


@dataclass(frozen=True)
class _ClassFolder:
    """One class in one split: the pictures, sorted by name, and what else lies there: files by suffix, folders."""

    folder: Path
    pictures: tuple[Path, ...]
    other_files: Mapping[str, int]
    folders: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> _ClassFolder:
        """Look into a class folder. Hidden files, and those that file managers leave, are nobody's pictures."""
        inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        files = [path for path in inside if path.is_file() and not is_litter(path.name)]
        return cls(
            folder,
            tuple(path for path in files if path.suffix.lower() in SUFFIXES),
            Counter(path.suffix.lower() or "no suffix" for path in files if path.suffix.lower() not in SUFFIXES),
            tuple(path.name for path in inside if path.is_dir()),
        )

    def passed_over(self, root: Path) -> str:
        """What was passed over here, in words; empty when nothing was."""
        told = []
        if self.other_files:
            kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(self.other_files.items()))
            told.append(f"{sum(self.other_files.values())} files of other kinds ({kinds})")
        if self.folders:
            inside = sum(path.is_file() for name in self.folders for path in (self.folder / name).rglob("*"))
            told.append(f"{inside} files in folders below it ({', '.join(self.folders[:4])})")
        if not told:
            return ""
        return f"Class '{self.folder.name}', folder {self.folder.relative_to(root)}: passed over {' and '.join(told)}."


def _class_folders(folder: Path, root: Path) -> list[_ClassFolder]:
    """The class folders of a split, sorted by name. Raises DataError for one without a single picture."""
    found = [_ClassFolder.of(path) for path in _folders(folder)]
    for one in found:
        if not one.pictures:
            holds = one.passed_over(root) or "It holds no files."
            raise DataError(
                f"Class '{one.folder.name}': no picture in {one.folder}. {holds}\n"
                f"Pictures are files ({', '.join(SUFFIXES)}) right in the class's folder. Convert or move them there, "
                "or remove the folder."
            )
    return found


def _decode_all(paths: Sequence[Path], size: int, channels: int) -> Iterator[np.ndarray | str]:
    """The pixels of each picture, or what is wrong with it, in order."""
    from PIL import Image, UnidentifiedImageError

    def decode(path: Path) -> np.ndarray | str:
        try:
            with Image.open(path) as image:
                return to_pixels(image, size, channels)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return (
                f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; refused, because such a file may be made to fill memory"
            )
        except UnidentifiedImageError:
            return "no picture that can be read" if path.stat().st_size else "an empty file"
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        # Set once outside the threads, which share the filters: damaged metadata is no news, a bomb is refused.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield from pool.map(decode, paths)


def to_pixels(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """The middle square of a picture, (size, size, channels) uint8: upright, on white, scaled bilinearly."""
    import numpy as np
    from PIL import Image, ImageOps

    image.draft("RGB" if channels == 3 else "L", (2 * size, 2 * size))  # lets JPEG decode at a fraction of its size
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16 bits a pixel; convert() would cut off instead of scaling.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.uint8).reshape(size, size, channels)


@dataclass
class Arrays(UserData):
    """Your own images as NumPy arrays: an npz with `images`, (n, height, width, channels) uint8, and `labels`.

    `path` is one npz, which is cut in three by the two fractions, or which holds `train_images`, `train_labels`,
    `validation_images` … (valid, val, dev …) and `test_images` … (testing, eval …); or a folder with train.npz,
    validation.npz and test.npz; or a pattern such as `data/{split}.npz`. Labels are integers or texts. Grey images may
    be (n, height, width). Without validation a tenth of train serves; without test, validation is the test. The class
    names may stand in the file as `classes`. Arrays of Python objects are refused, because reading them would run code.
    """

    path: str = option(
        "", "an npz, a folder with train.npz validation.npz test.npz, or a pattern like data/{split}.npz"
    )
    classes: list[str] = option([], "class names in order; default: `classes` in the file, else all labels, sorted")

    name: ClassVar[str] = "arrays"
    modality: ClassVar[Modality] = "image"

    def title(self) -> str:
        """The name and what the files are called."""
        return titled(self.name, self.path)

    def read(self) -> Data:
        """Read every array. Raises DataError naming file and array."""
        found, notes = locate(self.path, (".npz",), "images.npz", _holds_images)
        arrays = {split: _read_npz(file) for split, file in found.items()}
        classes = self.classes or next(
            (list(map(str, a["classes"].flat)) for a in arrays.values() if "classes" in a), []
        )
        if WHOLE in found:
            splits, inside = _within(found[WHOLE], arrays[WHOLE])
            notes += inside
        else:
            splits = {split: _pair(found[split], arrays[split], "") for split in found}
        return self.assemble(splits, classes, notes)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    import numpy as np

    try:
        with path.open("rb") as file:
            loaded: Any = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise DataError(f"{path} holds a single array. Save both: np.savez(path, images=…, labels=…)")
            arrays: dict[str, np.ndarray] = {}
            for name in loaded:
                if name.lower() in arrays:
                    raise DataError(f"{path} holds two arrays '{name.lower()}' that differ in capitals only.")
                arrays[name.lower()] = loaded[name]
            return arrays
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, TypeError, RuntimeError) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise DataError(
                f"{path} holds Python objects, or is no npz; objects are not read, because that would run code.\n"
                "Save plain arrays: np.savez(path, images=uint8 array, labels=int array)"
            ) from None
        raise DataError(f"{path} is no whole npz file: {error}.") from None


def _within(path: Path, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Raw], list[str]]:
    """The splits inside one file, by what stands before `_images` in the names of its arrays, and notes. Plain `images`
    are the training split where there are others."""
    # Labels alone name a split, too, so that images by another name are missed and not passed over.
    prefixes = dict.fromkeys(name.removesuffix(end) for end in ENDS for name in arrays if name.endswith(end))
    found, others = by_split([(prefix, f"{prefix}_images") for prefix in prefixes], str(path), str)
    if "images" in arrays and found.get("train") in arrays:
        raise DataError(f"{path} holds 'images' and '{found['train']}'. Only one can be the train split.")
    if "images" in arrays:
        found["train"] = "images"
    if "train" not in found:
        raise DataError(
            f"{path} has no array 'images' or 'train_images'. It has: {', '.join(arrays) or 'none'}."
            f"{did_you_mean('images', arrays)}\nSave it with np.savez(path, images=…, labels=…)"
        )
    advice = "save it as test_images, with test_labels"
    images = {name: array for name, array in arrays.items() if name not in found.values() and _may_be_images(array)}
    train = arrays.get(found["train"])
    examples = [name for name, array in images.items() if name in others or _may_be_test(name, array, train, found)]
    names = list(dict.fromkeys([*(name for name in others if name in arrays), *images]))
    arrangement, notes = arranged(found, Others(names, examples, advice=advice), str(path))
    return {split: _pair(path, arrays, name.removesuffix("images")) for split, name in arrangement.items()}, notes


def _holds_images(path: Path, train: Path) -> bool:
    """Whether an npz has an array `images`, one that is called as the images of a split are, or one like the images in
    the training file. Raises DataError for one that cannot be read."""
    arrays = _read_npz(path)
    candidates = {name: array for name, array in arrays.items() if _may_be_images(array)}
    if not candidates or any(name.endswith("images") for name in candidates):
        return bool(candidates)
    images = _read_npz(train).get("images")
    return any(
        _may_be_test(name, array, images, ("train", "validation")) or ("labels" in arrays and _alike(array, images))
        for name, array in candidates.items()
    )


def _may_be_images(array: np.ndarray) -> bool:
    return array.ndim in (3, 4) and array.dtype.kind in "biuf"


def _may_be_test(name: str, array: np.ndarray, train: np.ndarray | None, found: Collection[str]) -> bool:
    """Whether an array beside the training images may be those of the test: by its name, or by its likeness unless it
    has as many rows, as masks have that belong to the images."""
    return names_test(name, found) or (_alike(array, train) and train is not None and len(array) != len(train))


def _alike(array: np.ndarray, images: np.ndarray | None) -> bool:
    """Whether two arrays hold examples of one kind: of one type and, but for their number, one shape."""
    return images is not None and array.dtype == images.dtype and array.shape[1:] == images.shape[1:]


def _pair(path: Path, arrays: Mapping[str, np.ndarray], prefix: str) -> Raw:
    """Images and labels under one prefix, as they are called in the file."""
    for wanted in (f"{prefix}images", f"{prefix}labels"):
        if wanted not in arrays:
            raise DataError(
                f"{path} has no array '{wanted}'. It has: {', '.join(arrays) or 'none'}."
                f"{did_you_mean(wanted, arrays)}\nSave it with np.savez(path, images=…, labels=…)"
            )
    images: Any = arrays[f"{prefix}images"]
    labels = arrays[f"{prefix}labels"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not images.ndim or len(labels) != len(images):
        raise DataError(
            f"{path}: '{prefix}images' has the shape {images.shape} and '{prefix}labels' {labels.shape}. "
            "There has to be one label for each image."
        )
    if images.dtype.kind not in "biuf" or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: '{prefix}images' holds {images.dtype} in the shape {images.shape}. Images have to be one array "
            "(n, height, width, channels) of uint8, or (n, height, width) for grey ones."
        )
    images = images[..., None] if images.ndim == 3 else images
    origins = [f"{path.name} {prefix}images[{index}]" for index in range(len(images))]
    names = [label_name(label, origins[index].__str__) for index, label in enumerate(labels.tolist())]
    return Raw(images, names, origins)
