"""`python -m luban_app`: serve."""

from luban_app.server import main

if __name__ == "__main__":
    main()
