# ruff: noqa: N999  (the command is called zoo.import)
"""python -m zoo.import: predictions that were made elsewhere become run folders. The logic is in `zoo.importing`:
`import` is a word of the language, so nothing can import this module by name."""

from __future__ import annotations

from zoo import guard
from zoo.importing import main

if __name__ == "__main__":
    guard.leave(main())
