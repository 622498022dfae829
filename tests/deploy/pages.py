"""Reads the repository's Markdown pages: headings, links, code blocks, code spans.

For test_docs.py. It knows as much of Markdown as our pages use, and judges nothing.
"""

import dataclasses
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Block:
    """A block of code, fenced or indented. `info` is what stands behind the fence, empty for an indented one."""

    line: int
    info: str
    text: str

    @property
    def language(self):
        return self.info.split()[0] if self.info.split() else ""

    def has(self, word):
        return word in self.info.split()[1:]


class Page:
    """One page, taken apart."""

    def __init__(self, path, text=None):
        self.path = path
        self.name = path.relative_to(ROOT).as_posix() if path.is_absolute() else path.as_posix()
        self.headings = []  # (line, level, text)
        self.blocks = []
        self.prose = []  # (line, text): everything that is no code block
        self._take_apart((path.read_text() if text is None else text).splitlines())

    def _take_apart(self, lines):
        index, in_list, blank = 0, False, True
        while index < len(lines):
            line = lines[index]
            fence = re.match(r"( *)(`{3,}|~{3,})(.*)$", line)
            if fence:
                end = index + 1
                while end < len(lines) and not re.match(r" *" + re.escape(fence[2]) + r" *$", lines[end]):
                    end += 1
                body = [text[len(fence[1]):] if text.startswith(fence[1]) else text for text in lines[index + 1:end]]
                self.blocks.append(Block(index + 2, fence[3].strip(), "\n".join(body) + "\n"))
                index, blank = end + 1, True
                continue
            if re.match(r"\S", line):
                in_list = bool(re.match(r"([-*]|\d+\.) ", line)) or (in_list and not blank)
            depth = 6 if in_list else 4
            if blank and line.startswith(" " * depth):
                end = index
                while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" " * depth)):
                    end += 1
                self.blocks.append(Block(index + 1, "", "\n".join(text[depth:] for text in lines[index:end]).rstrip() + "\n"))
                index, blank = end, True
                continue
            heading = re.match(r"(#{1,6}) +(.*?) *#*$", line)
            if heading:
                self.headings.append((index + 1, len(heading[1]), heading[2]))
                in_list = False
            self.prose.append((index + 1, line))
            blank = not line.strip()
            index += 1

    def anchors(self):
        """The anchors that GitHub makes of the headings, and those that the page sets itself."""
        seen, anchors = {}, set()
        for _, text in self.prose:
            anchors.update(re.findall(r'<a (?:id|name)="([^"]+)">', text))
        for _, _, text in self.headings:
            text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).replace("`", "").lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            number = seen.get(slug, 0)
            seen[slug] = number + 1
            anchors.add(f"{slug}-{number}" if number else slug)
        return anchors

    def links(self):
        """(line, text, target) of every link and picture outside code."""
        whole = "\n".join(re.sub(r"`[^`]*`", lambda span: "`" + "_" * (len(span[0]) - 2) + "`", text) for _, text in self.prose)
        numbers = [number for number, _ in self.prose]
        for link in re.finditer(r"!?\[([^]]*)\]\(([^)\s]+)\)", whole):
            yield numbers[whole.count("\n", 0, link.start())], link[1], link[2]
        for definition in re.finditer(r"^\[([^]]+)\]: +(\S+)", whole, re.M):
            yield numbers[whole.count("\n", 0, definition.start())], definition[1], definition[2]

    def spans(self):
        """(line, text) of every code span; one may go over the end of a line."""
        start = 0
        while start < len(self.prose):
            end = start
            while end + 1 < len(self.prose) and self.prose[end][1].strip() and not self.prose[end][1].startswith("|"):
                end += 1
            paragraph = self.prose[start:end + 1]
            whole = "\n".join(text for _, text in paragraph)
            for span in re.finditer(r"(`+)(.+?)\1(?!`)", whole, re.S):
                text = re.sub(r"\s*\n\s*", " ", span[2]).strip().replace("\\|", "|")
                yield paragraph[whole.count("\n", 0, span.start())][0], text
            start = end + 1

    def section(self, title):
        """(line, text) of the prose under a heading, to the next of its level or above."""
        begin = next(((line, level) for line, level, text in self.headings if text == title), None)
        if begin is None:
            return []
        end = next((line for line, level, _ in self.headings if line > begin[0] and level <= begin[1]), 10**9)
        return [(line, text) for line, text in self.prose if begin[0] < line < end]


def tracked():
    """Every file of the repository, as paths from its top."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return sorted(path for path in listed.stdout.splitlines() if (ROOT / path).exists())


def all_pages():
    """The pages for people who run it: at the top, under docs/, and beside what is deployed."""
    places = ("docs/", "deploy/", "helm/")
    names = [path for path in tracked() if path.endswith(".md") and (path.count("/") == 0 or path.startswith(places))]
    return [Page(ROOT / name) for name in names]
