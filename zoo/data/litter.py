"""Files that a file manager, an editor or a version control leaves in any folder: nobody's data, and never a reason to
refuse a folder."""

from __future__ import annotations

from fnmatch import fnmatchcase

_PATTERNS = (
    ".ds_store",  # macOS, and its copies on other disks:
    "._*",
    ".appledouble",
    ".localized",
    "icon\r",
    "__macosx",  # in archives that were made there
    "thumbs.db",  # Windows
    "ehthumbs.db",
    "desktop.ini",
    ".directory",  # KDE
    ".gitkeep",
    ".gitignore",
    ".gitattributes",
    ".keep",
    ".ipynb_checkpoints",
    "*~",  # editors: backups, swap files, locks
    "*.bak",
    "*.orig",
    ".*.sw?",
    "#*#",
    ".#*",
    ".~lock.*#",  # LibreOffice
    ".nfs*",  # a file that was deleted while somebody had it open
)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is such a thing."""
    return any(fnmatchcase(name.lower(), pattern) for pattern in _PATTERNS)
