"""`python -m evengrad` -> the command line."""

from evengrad.cli.app import main

if __name__ == "__main__":
    main()
