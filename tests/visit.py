"""A page opened in a real browser."""

from pathlib import Path
from typing import Any


class Visit:
    """A page opened in the browser, with all that it complained of and asked for: tests ask what it shows."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-drawn]", state="attached", timeout=20_000)

    def _note_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    @property
    def network_requests(self) -> list[str]:
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    @property
    def is_wider_than_the_window(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def drawn_figures(self) -> dict[str, tuple[float, float]]:
        """Width and height of what was drawn in each chart's place; (0, 0) where nothing was."""
        sizes = self.page.evaluate(
            """() => [...document.querySelectorAll(".chart")].map((place) => {
                const box = place.querySelector("svg.marks, canvas")?.getBoundingClientRect();
                return [place.id, box?.width ?? 0, box?.height ?? 0];
            })"""
        )
        return {name: (width, height) for name, width, height in sizes}
