"""A comparison as Markdown, LaTeX and HTML."""
