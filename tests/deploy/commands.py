"""What our programs' commands take, asked of the programs themselves, and the commands that stand in a text.

For test_docs.py. The programs are asked for help and nothing else.
"""

import functools
import json
import os
import pathlib
import re
import shlex
import subprocess

from pages import ROOT

PROGRAMS = ("lictor", "lictor-agent", "lictor-control-plane")


@functools.cache
def programs_directory():
    """Where the built programs are; built first where one is missing."""
    given = os.environ.get("LICTOR_BIN_DIR")
    if given:
        directory = pathlib.Path(given)
    else:
        metadata = subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )
        directory = pathlib.Path(json.loads(metadata.stdout)["target_directory"], "debug")
        if not all((directory / program).exists() for program in PROGRAMS):
            subprocess.run(["cargo", "build", "--workspace", "--bins", "--locked"], cwd=ROOT, check=True)
    missing = [program for program in PROGRAMS if not (directory / program).exists()]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)} not in {directory}")
    return directory


class Command:
    """A command of a program: its subcommands and flags, from its help."""

    def __init__(self, words):
        self.words = words
        help_text = subprocess.run(
            [programs_directory() / words[0], *words[1:], "--help"],
            capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL,
        ).stdout
        listed = re.search(r"^Commands:\n((?:.+\n)+)", help_text, re.M)
        self.names = set(re.findall(r"^  ([a-z][a-z-]*)\b", listed[1], re.M)) if listed else set()
        self.flags = set()
        for line in re.findall(r"^ {2,8}(-.*)$", help_text, re.M):
            head = re.split(r" {2,}|<|\[", line)[0]
            self.flags.update(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", head))
        self.flags.update(flag for line in re.findall(r"\[aliases?: ([^]]*)\]", help_text) for flag in re.findall(r"--[\w-]+", line))

    @functools.cache
    def sub(self, name):
        return Command([*self.words, name])


@functools.cache
def program(name):
    return Command([name])


def clean(word):
    """A word of a synopsis without its marks for what may be left out."""
    return word.strip("[](){}").rstrip(".,;:")


def mistakes(words):
    """What is wrong with a command line of ours, `words` beginning with the program. Understands synopses: `[--flag]`, `a|b`,
    `... | other SUBCOMMAND`."""
    current, parent, found, index, placed = program(words[0]), None, [], 1, False
    while index < len(words):
        word = clean(words[index])
        index += 1
        if word == "--":
            break
        if word == "|":
            following = clean(words[index]) if index < len(words) else ""
            family = parent if parent and following in parent.names else None
            if family is None:
                break
            current, parent, placed = family, None, False
            continue
        if word.startswith("-"):
            for flag in word.split("|"):
                flag = re.split(r"[=\[]", flag)[0]
                if flag.startswith("-") and flag != "-" and flag not in current.flags and not re.fullmatch(r"-\d.*|-[a-z]{2,}", flag):
                    found.append(f"`{' '.join(current.words)}` has no flag {flag}")
            continue
        if not current.names or placed:
            continue
        choices = word.split("|")
        if all(choice in current.names for choice in choices):
            if current.words[0] == words[0] and "help" in choices:
                break
            parent = current
            if len(choices) == 1:
                current = current.sub(word)
            else:
                # Flags behind several commands are those of any.
                joined = Command.__new__(Command)
                joined.words, joined.names = [*current.words, word], set()
                joined.flags = set().union(*(current.sub(choice).flags for choice in choices))
                current, placed = joined, True
        elif re.fullmatch(r"[a-z][a-z-]*(\|[a-z-]+)*", word):
            found.append(f"`{' '.join(current.words)}` has no command {word}")
            break
        else:
            # A placeholder, or the end of what is said.
            break
    return found


def split(line):
    """The words of a line, `|` apart. None where it is no line of a shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        return None


def logical_lines(text):
    """(offset, line) with continued lines joined: by a backslash, or by a further indent as synopses have it."""
    joined = []
    for offset, line in enumerate(text.splitlines()):
        if joined and joined[-1][1].endswith("\\"):
            joined[-1][1] = joined[-1][1][:-1] + " " + line.strip()
        elif joined and line.startswith("    ") and joined[-1][1].strip() and not joined[-1][1].startswith("    "):
            joined[-1][1] += " " + line.strip()
        else:
            joined.append([offset, line])
    return [tuple(line) for line in joined]


def ours(line):
    """The command lines of our programs in a line, each as words that begin with the program."""
    line = re.sub(r"\s+#.*$", "", line.strip().removeprefix("$ "))
    if not any(name in line for name in PROGRAMS):
        return
    words = split(line)
    if words is None:
        words = line.split()
    fresh, runner, dashes = True, "", False
    for index, word in enumerate(words):
        if word in ("|", ";", "&&", "||", "&"):
            fresh, runner, dashes = True, "", False
            continue
        if fresh and (re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", word) or word in ("sudo", "env", "exec")):
            continue
        if fresh:
            runner = word if word in ("kubectl", "oc", "docker", "podman") else ""
        # kubectl runs what stands behind `--`; an engine what stands alone behind the name of container or service.
        dashes = dashes or word == "--"
        starts = fresh or (dashes if runner in ("kubectl", "oc") else bool(runner) and words[index - 1] != "exec")
        name = word.rsplit("/", 1)[-1] if fresh and re.match(r"(\./|/usr/local/bin/|target/)", word) else word
        if starts and name in PROGRAMS and not words[index + 1 : index + 2][:1] == ["(people)"]:
            end = next((at for at in range(index + 1, len(words)) if words[at] in (";", "&&", "||", "&", ">", "<", ">>")), len(words))
            yield [name, *words[index + 1:end]]
            runner = ""
        fresh = False
