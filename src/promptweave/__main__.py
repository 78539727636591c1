"""`python -m promptweave` is `promptweave`."""

from promptweave.apps.cli import main

if __name__ == "__main__":
    main()
