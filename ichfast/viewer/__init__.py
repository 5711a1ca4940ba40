"""One HTML file to look at a study's slices with a model's probability over them."""

from ichfast.viewer.pack import quantise
from ichfast.viewer.page import StudyPage, render_page

__all__ = ["StudyPage", "quantise", "render_page"]
