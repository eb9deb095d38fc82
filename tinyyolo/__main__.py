"""`python -m tinyyolo`, which is what torchrun starts: the `tinyyolo` command."""

from tinyyolo.cli import main

if __name__ == "__main__":
    main()
