"""`python -m zoo.lineage`."""

from zoo.lineage.command import main

if __name__ == "__main__":
    main()
