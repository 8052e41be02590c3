"""The pages: templates, style, words in two languages, and the handlers that fill them."""
