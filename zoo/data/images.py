"""Images out of the user's own files: a folder of pictures, or NumPy arrays."""

from __future__ import annotations

import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.data import Data
from zoo.data.assembly import ALIASES, WHOLE, Raw, UserData, arranged, existing, label_name, locate, option, titled
from zoo.errors import ConfigError, DataError, did_you_mean
from zoo.models import Modality

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
NAMED = 10
"""How many broken images a message names before it only counts."""


@dataclass
class ImageFolder(UserData):
    """Your own pictures: root/split/class/*.jpg (jpeg, png, bmp, gif, webp), with the class as the folder's name.

    The splits are the folders train, validation (valid, val, dev) and test. Without validation a tenth of train serves;
    without test, validation is the test. Without any of them (root/class/*) the whole is cut by the two fractions.
    Every picture is turned upright (EXIF), put on white where it is transparent, scaled to `size` at its short side and
    cropped to the middle square. Of an animation the first frame counts. Files with other extensions are passed over.
    """

    root: str = option("", "folder that holds train/, validation/ and test/, each with one folder a class")
    size: int = option(64, "height and width in pixels to which every picture is brought")
    channels: int = option(3, "3 for colour, 1 for grey")
    skip_broken: bool = option(False, "leave broken pictures out, instead of stopping with a list of them")

    name: ClassVar[str] = "image_folder"
    modality: ClassVar[Modality] = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_format(self.size, self.channels)

    def title(self) -> str:
        """The name and what the files are called."""
        return titled(self.name, self.root)

    def read(self) -> Data:
        """Read every picture. Raises DataError naming the broken ones."""
        root = existing(self.root, "root", "photos")
        if not root.is_dir():
            raise DataError(f"root={self.root} is a file. Name the folder that holds the split or class folders.")
        splits = {split: _pictures(folder) for split, folder in _split_folders(root).items()}
        classes = sorted({path.parent.name for paths in splits.values() for path in paths})
        if not classes:
            raise DataError(
                f"No pictures under {root}. Expected: {root.name}/train/<class>/*.jpg or {root.name}/<class>/*.jpg "
                f"({', '.join(SUFFIXES)})."
            )
        read = {split: self._decoded(paths, root) for split, paths in splits.items()}
        self._report(sum(map(len, splits.values())), [line for _, broken in read.values() for line in broken])
        return self.assemble({split: raw for split, (raw, _) in read.items()}, classes)

    def _decoded(self, paths: Sequence[Path], root: Path) -> tuple[Raw, list[str]]:
        """The whole pictures, and a line for each broken one."""
        import numpy as np

        images = np.empty((len(paths), self.size, self.size, self.channels), np.uint8)
        whole: list[Path] = []
        broken: list[str] = []
        for path, result in zip(paths, _decode_all(paths, self.size, self.channels), strict=True):
            if isinstance(result, str):
                broken.append(f"{path}: {result}")
            else:
                images[len(whole)] = result
                whole.append(path)
        names = [path.parent.name for path in whole]
        return Raw(images[: len(whole)], names, [str(path.relative_to(root)) for path in whole]), broken

    def _report(self, total: int, broken: Sequence[str]) -> None:
        """Say which pictures are broken: as an error, or as a warning when they are to be skipped."""
        if not broken:
            return
        more = f"\n… and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        listed = "\n".join(broken[:NAMED]) + more
        if self.skip_broken:
            logging.getLogger("zoo").warning(
                "%d of %d pictures are broken and left out:\n%s", len(broken), total, listed
            )
        else:
            raise DataError(
                f"{len(broken)} of {total} pictures cannot be read. Mend or remove them, or say skip_broken=true:\n"
                f"{listed}"
            )


def check_format(size: int, channels: int) -> None:
    """Raise ConfigError unless the pictures can be brought to this format."""
    if not 1 <= size <= 4096:
        raise ConfigError(f"dataset.size={size}: it must be from 1 to 4096 pixels, e.g. 64.")
    if channels not in (1, 3):
        raise ConfigError(f"dataset.channels={channels}: it must be 3 (colour) or 1 (grey).")


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits that there are, arranged; the root itself when it holds the classes."""
    folders = {path.name: path for path in root.iterdir() if path.is_dir()}
    found: dict[str, Path] = {}
    for split, names in ALIASES.items():
        present = [name for name in names if name in folders]
        if len(present) > 1:
            raise DataError(f"{root} holds more than one {split} folder: {' and '.join(present)}. Keep one of them.")
        if present:
            found[split] = folders[present[0]]
    if not found:
        return {WHOLE: root}
    if "train" not in found:
        raise DataError(
            f"{root} has {' and '.join(path.name for path in found.values())} but no folder train."
            f"{did_you_mean('train', folders)}"
        )
    return arranged(found)


def _pictures(folder: Path) -> list[Path]:
    """The pictures in the class folders, sorted by class and name; hidden files are passed over."""
    return [
        path
        for kind in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        for path in sorted(kind.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]


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
    `validation_images` … (valid, val, dev) and `test_images` …; or a folder with train.npz, validation.npz and
    test.npz; or a pattern such as `data/{split}.npz`. Labels are integers or texts. Grey images may be
    (n, height, width). Without validation a tenth of train serves; without test, validation is the test.
    The class names may stand in the file as `classes`. Arrays of Python objects are refused, because reading them
    would run code.
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
        found = locate(self.path, (".npz",), "images.npz")
        arrays = {split: _read_npz(file) for split, file in found.items()}
        classes = self.classes or next((list(map(str, a["classes"])) for a in arrays.values() if "classes" in a), [])
        if WHOLE in found:
            splits = _within(found[WHOLE], arrays[WHOLE])
        else:
            splits = {split: _pair(found[split], arrays[split], "") for split in found}
        return self.assemble(splits, classes)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    import numpy as np

    try:
        with path.open("rb") as file:
            loaded: Any = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise DataError(f"{path} holds a single array. Save both: np.savez(path, images=…, labels=…)")
            return dict(loaded)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise DataError(
                f"{path} holds Python objects, or is no npz; objects are not read, because that would run code.\n"
                "Save plain arrays: np.savez(path, images=uint8 array, labels=int array)"
            ) from None
        raise DataError(f"{path} is no whole npz file: {error}.") from None


def _within(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Raw]:
    """The splits inside one file, by the prefixes of its arrays."""
    prefixes = {split: f"{name}_" for split, names in ALIASES.items() for name in names if f"{name}_images" in arrays}
    if "train" not in prefixes:
        return {WHOLE: _pair(path, arrays, "")}
    return arranged({split: _pair(path, arrays, prefix) for split, prefix in prefixes.items()})


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
    if labels.ndim != 1 or len(labels) != len(images):
        raise DataError(
            f"{path}: '{prefix}images' has the shape {images.shape} and '{prefix}labels' {labels.shape}. "
            "There has to be one label for each image."
        )
    images = images[..., None] if images.ndim == 3 else images
    origins = [f"{path.name} {prefix}images[{index}]" for index in range(len(images))]
    names = [label_name(label, origins[index].__str__) for index, label in enumerate(labels.tolist())]
    return Raw(images, names, origins)
