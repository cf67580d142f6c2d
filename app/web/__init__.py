"""The web page."""

from app.web.page import build_page, serve_page

__all__ = ["build_page", "serve_page"]
