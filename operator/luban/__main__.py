"""`python -m luban`."""

from luban.cli.main import main

if __name__ == "__main__":
    main(prog_name="luban")
