"""Holds README.md, docs/ and the other pages to what is there.

Links and their anchors lead somewhere; files and tests that are named exist; commands and flags are those of our programs, of helm
and of kubectl; environment variables, metrics and settings are those of the reference pages; values for the charts are taken by the
charts; the security model names code and tests for each answer.

Needs the programs (built when they are missing; LICTOR_BIN_DIR names where they are) and tests/deploy/tools/helm.
Runs alone: .venv/bin/python tests/deploy/test_docs.py
"""

import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import commands  # noqa: E402
from pages import ROOT, Page, all_pages, tracked  # noqa: E402

CHARTS = ("lictor-agent", "lictor-control-plane")

# The pages whose every name of a value, a setting or a metric is looked up.
STRICT = (
    "README.md",
    "SECURITY.md",
    "docs/kubernetes.md",
    "docs/migrate-ansible.md",
    "docs/migrate-harness.md",
    "docs/security.md",
)


@functools.cache
def pages():
    return {page.name: page for page in all_pages()}


@functools.cache
def paths():
    files = set(tracked())
    return files | {parent.as_posix() for path in files for parent in pathlib.PurePath(path).parents}


@functools.cache
def code_text():
    """All program texts, for names that must occur in one."""
    suffixes = (".rs", ".sh", ".py", ".proto", ".toml")
    return "\n".join(
        (ROOT / path).read_text(errors="replace")
        for path in tracked()
        if path.endswith(suffixes) or path == "Dockerfile" or path.startswith(("scripts/", "helm/", "deploy/"))
        if path != "tests/deploy/test_docs.py" and (ROOT / path).is_file() and (ROOT / path).stat().st_size < 2_000_000
    )


@functools.cache
def helm_directory():
    """Directory with helm and kubectl."""
    found = subprocess.run([ROOT / "tests/deploy/tools/helm"], capture_output=True, text=True, check=True)
    return pathlib.Path(found.stdout.strip().splitlines()[-1])


@functools.cache
def schema(chart):
    return json.loads((ROOT / "helm" / chart / "values.schema.json").read_text())


def settings_of(page):
    """The settings in the tables of a reference page."""
    found = set()
    for _, line in page.prose:
        row = re.match(r"\| `([a-z][a-z0-9_.]*)` \|", line)
        if row:
            found.add(row[1])
    return found


@functools.cache
def agent_settings():
    return settings_of(pages()["docs/agent-settings.md"])


@functools.cache
def control_plane_settings():
    return settings_of(pages()["docs/control-plane-settings.md"])


@functools.cache
def metrics():
    return set(re.findall(r"`((?:agent|control_plane)_[a-z0-9_]+)`", (ROOT / "docs/metrics.md").read_text()))


def holds_path(tree, path):
    """Whether the schema of a chart describes the value `path`, such as `image.tag`."""
    def resolve(node):
        while "$ref" in node:
            target = tree
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def look(node, parts):
        node = resolve(node)
        if not parts:
            return True
        for kind in ("anyOf", "oneOf", "allOf"):
            if any(look(branch, parts) for branch in node.get(kind, [])):
                return True
        properties = node.get("properties", {})
        if parts[0] in properties:
            return look(properties[parts[0]], parts[1:])
        open_ended = node.get("additionalProperties")
        if isinstance(open_ended, dict):
            return look(open_ended, parts[1:])
        return open_ended is True or (node.get("type") == "object" and not properties and open_ended is None)

    return look(tree, path.split("."))


class Pages(unittest.TestCase):
    """What concerns every page."""

    maxDiff = None

    def none(self, found):
        self.assertEqual([], found, "\n" + "\n".join(found))

    def test_links_lead_somewhere(self):
        found = []
        for page in pages().values():
            for line, _, target in page.links():
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                goal = (page.path.parent / path).resolve() if path else page.path
                if not goal.exists() or not goal.is_relative_to(ROOT):
                    found.append(f"{page.name}:{line}: no file {target}")
                elif anchor and (goal.suffix != ".md" or anchor not in Page(goal).anchors()):
                    found.append(f"{page.name}:{line}: no heading {target}")
        self.none(found)

    def test_every_page_is_reached_from_the_readme(self):
        reached, waiting = set(), ["README.md"]
        while waiting:
            name = waiting.pop()
            if name in reached or name not in pages():
                continue
            reached.add(name)
            page = pages()[name]
            for _, _, target in page.links():
                goal = (page.path.parent / target.partition("#")[0]).resolve()
                if target and not re.match(r"[a-z]+:", target) and goal.is_relative_to(ROOT):
                    waiting.append(goal.relative_to(ROOT).as_posix())
        # The decisions are linked as a directory; the others are shown with their directory.
        shown = ("docs/decisions/", "deploy/", "helm/")
        self.none([name for name in pages() if name not in reached and not name.startswith(shown)])

    def test_named_files_exist(self):
        tops = {path.split("/")[0] for path in paths() if "/" in path} | {"helm", "deploy"}
        found = []
        for page in pages().values():
            if page.name == "CHANGELOG.md":
                continue
            named = [(line, word) for line, text in page.spans() for word in text.split()]
            named += [
                (block.line + offset, word)
                for block in page.blocks
                for offset, text in enumerate(block.text.splitlines())
                for word in re.split(r"[\s=,'\"]+", text)
            ]
            for line, word in named:
                word = re.sub(r"::\w+$", "", word.strip("()[];,.:")).removeprefix("./").rstrip("/")
                if re.search(r"/N(-\d)?\.\w+$", word):
                    # N stands for a version.
                    continue
                if word.startswith("winrm/config"):
                    # The service's own resources: `winrm get winrm/config`.
                    continue
                if "/" not in word or word.split("/")[0] not in tops or not re.fullmatch(r"[\w./{},*+-]+", word):
                    continue
                if not self.exists(word, page):
                    found.append(f"{page.name}:{line}: no file {word}")
        self.none(found)

    def exists(self, word, page):
        group = re.search(r"\{([^}]*)\}", word)
        if group:
            return all(self.exists(word.replace(group[0], choice, 1), page) for choice in group[1].split(","))
        if word in paths() or (page.path.parent / word).exists():
            return True
        if "*" in word:
            return any(pathlib.PurePath(path).match(word) for path in paths())
        # Objects of kubectl (`deploy/NAME`, `secret/NAME`), images and places on other machines are told by their form.
        return bool(re.fullmatch(r"(deploy|deployment|statefulset)/[a-z-]+", word)) and word.startswith("deploy/") and (
            word.split("/")[1] in page_objects(page)
        )

    def test_named_tests_exist(self):
        found = []
        for page in pages().values():
            for line, text in page.spans():
                for file, test in re.findall(r"([\w./-]+\.(?:rs|py))::(\w+)", text):
                    if file not in paths():
                        found.append(f"{page.name}:{line}: no file {file}")
                    elif not re.search(rf"\b(fn|def) {test}\(", (ROOT / file).read_text()):
                        found.append(f"{page.name}:{line}: no test {test} in {file}")
        self.none(found)

    def test_our_commands_and_flags_exist(self):
        found, seen = [], 0
        for page in pages().values():
            if page.name == "CHANGELOG.md":
                continue
            lines = [(line, text) for line, text in page.spans()]
            for block in page.blocks:
                lines += [(block.line + offset, text) for offset, text in commands.logical_lines(block.text)]
            for line, text in lines:
                for words in commands.ours(text):
                    if len(words) == 1:
                        continue
                    seen += 1
                    found += [f"{page.name}:{line}: {mistake}" for mistake in commands.mistakes(words)]
        self.assertGreater(seen, 100, "the pages hold fewer commands than they are known to")
        self.none(found)

    def test_environment_variables_exist(self):
        def names(prefix, settings):
            return {prefix + key.upper().replace(".", "__") for key in settings}

        known = names("LICTOR_AGENT_", agent_settings()) | names("LICTOR_CONTROL_PLANE_", control_plane_settings())
        found = []
        for page in pages().values():
            for number, line in enumerate(page.path.read_text().splitlines(), 1):
                for name in re.findall(r"\bLICTOR_[A-Z0-9_]*[A-Z0-9]\b(?![_<*])", line):
                    if name in known or re.search(rf"\b{name}\b", code_text()):
                        continue
                    if name == "LICTOR_PASSWORD_NAME" or re.search(rf"{name}_", line):
                        continue
                    found.append(f"{page.name}:{number}: {name} is no setting and in no program")
        self.none(found)

    def test_images_have_the_version_of_the_programs(self):
        version = re.search(r'^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        found = []
        for name in ("README.md", "docs/kubernetes.md", "docs/images.md"):
            named = re.findall(r"lictor-(?:agent|control-plane|winsim):(\d[\d.]*\d)|^  tag: (\S+)", pages()[name].path.read_text(), re.M)
            found += [f"{name}: an image of version {'/'.join(one)}, not {version}" for one in named if version not in one]
        self.none(sorted(set(found)))

    def test_images_that_are_built_for_a_registry_are_pushed(self):
        found = []
        for page in pages().values():
            text = page.path.read_text()
            built = re.findall(r"^ +docker build\b.*?--tag (registry\.example/\S+)", text, re.M)
            found += [f"{page.name}: {one} is built and not pushed" for one in built if f"docker push {one}\n" not in text]
        self.none(found)

    def test_blocks_can_be_read(self):
        found = []
        for page in pages().values():
            for block in page.blocks:
                try:
                    if block.language in ("yaml", "yml"):
                        list(yaml.safe_load_all(block.text))
                    elif block.language == "json":
                        json.loads(block.text)
                    elif block.language == "toml":
                        import tomllib

                        tomllib.loads(block.text)
                    elif block.language in ("sh", "bash"):
                        checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
                        if checked.returncode:
                            raise ValueError(checked.stderr)
                except Exception as error:  # Whatever a reader says, the block is at fault.
                    found.append(f"{page.name}:{block.line}: {error}")
        self.none(found)


def page_objects(page):
    """Names of deployments that a page says its releases have."""
    return set(re.findall(r"helm (?:install|upgrade(?: --install)?) ([a-z-]+)", page.path.read_text())) | set(CHARTS)


class Charts(unittest.TestCase):
    """What the pages say to helm, kubectl and the charts."""

    maxDiff = None

    def none(self, found):
        self.assertEqual([], found, "\n" + "\n".join(found))

    def lines(self, programs):
        for page in pages().values():
            lines = [(line, text) for line, text in page.spans() if " " in text]
            for block in page.blocks:
                if block.language in ("", "sh", "bash"):
                    lines += [(block.line + offset, text) for offset, text in commands.logical_lines(block.text)]
            for line, text in lines:
                for part in re.split(r"\s(?:\||&&|;)\s", re.sub(r"\s#\s.*$", "", text)):
                    words = commands.split(part)
                    if words and words[0] in programs:
                        yield page, line, words

    def test_values_blocks_are_taken_by_their_chart(self):
        seen = 0
        for page in pages().values():
            for block in page.blocks:
                for chart in CHARTS:
                    if block.has(f"values={chart}"):
                        seen += 1
                        with self.subTest(page=page.name, line=block.line):
                            self.template(chart, block, base="upgrade" if block.has("part") else None)
        if "docs/kubernetes.md" in pages():
            self.assertGreater(seen, 5)

    def template(self, chart, block, base):
        """Renders the chart with the values of the block. A block marked `part` is put over the page's minimal values."""
        with tempfile.TemporaryDirectory() as directory:
            arguments = []
            if base:
                minimal = pathlib.Path(directory, "minimal.yaml")
                minimal.write_text(yaml.safe_dump(minimal_values(chart)))
                arguments += ["--values", str(minimal)]
            file = pathlib.Path(directory, "values.yaml")
            file.write_text(block.text)
            rendered = subprocess.run(
                [helm_directory() / "helm", "template", "release", ROOT / "helm" / chart, *arguments, "--values", file],
                capture_output=True, text=True, timeout=120, env=helm_environment(directory),
            )
            self.assertEqual(0, rendered.returncode, rendered.stderr)
            documents = [document for document in yaml.safe_load_all(rendered.stdout) if document]
            self.assertTrue(documents)
            for value in yaml.safe_load(block.text):
                self.assertTrue(holds_path(schema(chart), value), f"{chart} has no value {value}")
            self.check_config(chart, documents, directory)

    def check_config(self, chart, documents, directory):
        """Has the program read the settings, and the policy that they name, as the chart made them of the block."""
        files = {
            name: text
            for document in documents
            if document["kind"] == "ConfigMap"
            for name, text in document["data"].items()
            if re.search(r"\.ya?ml$", name)
        }
        settings = {"lictor-agent": "agent.yaml", "lictor-control-plane": "control-plane.yaml"}[chart]
        self.assertIn(settings, files, "the chart made no settings")
        # Stand-ins for what is mounted and not the chart's to make.
        mounts = pathlib.Path(directory, "etc")
        authorities = pathlib.Path("/etc/ssl/certs/ca-certificates.crt").read_text().partition("-----END CERTIFICATE-----")
        stand_ins = {
            "krb5/krb5.conf": "[libdefaults]\n  default_realm = CORP.EXAMPLE\n",
            "bootstrap/init.sh": "true\n",
            "ca/ca.pem": "".join(authorities[:2]) + "\n",
            "join/token": "",
            "keytabs/.none": "",
            "proxy/password": "",
        }
        for name, text in [*stand_ins.items(), *((f"policy/{name}", text) for name, text in files.items())]:
            (mounts / name).parent.mkdir(parents=True, exist_ok=True)
            (mounts / name).write_text(text)
        pathlib.Path(directory, settings).write_text(files[settings].replace("/etc/lictor/", f"{mounts}/"))
        read = subprocess.run(
            [commands.programs_directory() / chart, "check-config", "--config", pathlib.Path(directory, settings)],
            capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"], "HOME": directory},
        )
        self.assertEqual(0, read.returncode, read.stderr)

    def test_places_in_pods_are_those_of_the_charts(self):
        chart_text = "\n".join((ROOT / path).read_text() for path in tracked() if path.startswith("helm/"))
        found = []
        for name in STRICT:
            for block in pages()[name].blocks if name in pages() else ():
                for path in re.findall(r"(?<![\w.])/(?:var/lib|etc)/lictor[\w./-]*", block.text):
                    # Names of keytabs and the like are the user's; where they lie is not.
                    known = [path] if path.startswith("/var/lib/") else [path, path.rsplit("/", 1)[0]]
                    if block.has("playbook") or any(re.search(rf"{re.escape(one)}(?![\w/.-])", chart_text) for one in known):
                        continue
                    found.append(f"{name}:{block.line}: no chart has {path}")
        self.none(found)

    def test_helm_commands_exist(self):
        found, seen = [], 0
        with tempfile.TemporaryDirectory() as directory:
            for page, line, words in self.lines({"helm"}):
                seen += 1
                arguments = [word for word in words[1:] if not word.startswith("-")]
                names = arguments[:1]
                flags = self.flags([helm_directory() / "helm", *names], directory)
                found += self.unknown(page, line, words, flags)
                charts = [word for word in arguments if word.startswith("helm/")]
                sets = [words[at + 1] for at, word in enumerate(words[:-1]) if word in ("--set", "--set-string", "--set-file")]
                for chart in charts:
                    name = chart.rstrip("/").split("/")[1]
                    for pair in sets:
                        path = re.sub(r"\[\d+\]", "", pair.split("=")[0])
                        if not holds_path(schema(name), path):
                            found.append(f"{page.name}:{line}: {name} has no value {path}")
        self.none(found)

    def test_kubectl_commands_exist(self):
        found = []
        with tempfile.TemporaryDirectory() as directory:
            for page, line, words in self.lines({"kubectl"}):
                plain = list(words)
                while len(plain) > 2 and plain[1] in ("-n", "--namespace"):
                    del plain[1:3]
                names = []
                for word in plain[1:]:
                    if word.startswith("-") or len(names) == 3:
                        break
                    names.append(word)
                nested = {"create": 2, "rollout": 1, "auth": 1, "config": 1, "top": 1}
                names = names[: 1 + nested.get(names[0] if names else "", 0)]
                if names[:1] == ["create"] and names[1:2] != ["secret"]:
                    names = names[:2]
                flags = self.flags([helm_directory() / "kubectl", *names], directory)
                stop = words.index("--") if "--" in words else len(words)
                found += self.unknown(page, line, words[:stop], flags)
        self.none(found)

    @staticmethod
    @functools.cache
    def help_of(command, directory):
        del directory
        with tempfile.TemporaryDirectory() as home:
            return subprocess.run(
                [*command, "--help"], capture_output=True, text=True, timeout=60, env=helm_environment(home)
            )

    def flags(self, command, directory):
        told = self.help_of(tuple(str(word) for word in command), directory)
        self.assertEqual(0, told.returncode, f"{command}: {told.stderr}")
        self.assertNotIn("unknown command", told.stdout + told.stderr)
        flags = set(re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)\b", told.stdout))
        # What every command of kubectl takes stands in a help of its own.
        return flags | {"-n", "--namespace", "--context", "--kubeconfig", "--help", "-h", "--request-timeout"}

    @staticmethod
    def unknown(page, line, words, flags):
        return [
            f"{page.name}:{line}: {words[0]} {words[1] if len(words) > 1 else ''} has no flag {word}"
            for word in words[1:]
            if word.startswith("-") and word != "--" and re.split(r"=", word)[0] not in flags
        ]


def helm_environment(home):
    return {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": "/dev/null"}


@functools.cache
def minimal_values(chart):
    """The first block of docs/kubernetes.md that holds values for the chart and is no part."""
    for block in pages()["docs/kubernetes.md"].blocks:
        if block.has(f"values={chart}") and not block.has("part"):
            return yaml.safe_load(block.text)
    raise LookupError(f"docs/kubernetes.md has no whole values for {chart}")


class Playbooks(unittest.TestCase):
    """What the pages say to Ansible."""

    def test_playbooks_are_read_by_ansible(self):
        playbook = pathlib.Path(sys.executable).parent / "ansible-playbook"
        seen = 0
        for page in pages().values():
            for block in page.blocks:
                if not block.has("playbook"):
                    continue
                seen += 1
                with tempfile.TemporaryDirectory() as directory:
                    file = pathlib.Path(directory, "playbook.yaml")
                    file.write_text(block.text)
                    read = subprocess.run(
                        [playbook, "--syntax-check", "--inventory", "localhost,", file],
                        capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": directory},
                    )
                    self.assertEqual(0, read.returncode, f"{page.name}:{block.line}: {read.stderr}")
                    # The command that it runs is one of ours.
                    for play in yaml.safe_load(block.text):
                        for task in play["tasks"]:
                            words = task["ansible.builtin.command"]["argv"]
                            self.assertEqual([], commands.mistakes(words))
        self.assertGreater(seen, 0)


class Names(unittest.TestCase):
    """Names of values, settings and metrics in the pages for operators."""

    def test_names_are_known(self):
        chart_text = "\n".join(
            (ROOT / path).read_text() for path in tracked() if path.startswith(("helm/", "deploy/")) and (ROOT / path).is_file()
        )
        reference = "\n".join(page.path.read_text() for name, page in pages().items() if name not in STRICT)
        harness = "\n".join(path.read_text() for path in (ROOT / "import/src/harness").rglob("*.rs"))
        found = []
        for name in STRICT:
            page = pages().get(name)
            for line, text in page.spans() if page else ():
                word = re.split(r"[ =:{]", text)[0]
                if re.fullmatch(r"(agent|control_plane)_[a-z0-9_]+", word):
                    known = word in metrics() or re.search(rf"\b{word}\b", reference + code_text())
                elif re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", word) and not re.search(
                    r"\.(md|rs|py|yaml|yml|toml|json|pem|conf|svg|db|log|txt|example|local|svc|redb|key|crt|sh|proto|internal)$", word
                ):
                    known = word in agent_settings() | control_plane_settings() or re.search(
                        rf"(?<![\w.]){re.escape(word)}(?![\w])", reference + code_text()
                    ) or any(holds_path(schema(chart), word) for chart in CHARTS if (ROOT / "helm" / chart).is_dir())
                elif re.fullmatch(r"[a-z]+([A-Z][a-z]+)+(\.[a-zA-Z]+)*", word) or re.fullmatch(r"[a-z]+(\.[a-zA-Z]+)+", word):
                    known = any(holds_path(schema(chart), word) for chart in CHARTS if (ROOT / "helm" / chart).is_dir())
                    known = known or re.search(rf"\b{re.escape(word)}\b", chart_text + reference)
                else:
                    continue
                # Fields of Harness documents that the import reads.
                known = known or all(re.search(rf'[".]{part}\b', harness) for part in word.split("."))
                if word.startswith(("ansible.", "delegate.")):
                    # Ansible's modules; Harness's file.
                    continue
                if not known:
                    found.append(f"{name}:{line}: nothing is called {word}")
        self.assertEqual([], found, "\n" + "\n".join(found))


class Dashboards(unittest.TestCase):
    """What docs/migrate-harness.md says of the dashboard."""

    def test_named_panels_exist(self):
        titles = {panel.get("title") for panel in json.loads((ROOT / "deploy/grafana/lictor.json").read_text())["panels"]}
        section = pages()["docs/migrate-harness.md"].section("Metrics and dashboards")
        rows = [re.match(r"\| `[a-z_]+` \|.*\| ([^|]+) \|$", line) for _, line in section]
        named = [title.strip() for row in rows if row for title in row[1].split(",")]
        self.assertGreater(len(named), 8)
        self.assertEqual([], [title for title in named if title not in titles])


class SecurityModel(unittest.TestCase):
    """Each threat of docs/security.md has an answer with the code that gives it and the test that shows it."""

    @staticmethod
    def stages():
        return re.findall(r'^stage "([^"]+)"', (ROOT / "scripts/test").read_text(), re.M)

    def test_each_answer_names_code_and_tests(self):
        page = pages()["docs/security.md"]
        threats = page.section("Threats and answers")
        titles = [(line, text) for line, level, text in page.headings if level == 3 and threats and threats[0][0] <= line <= threats[-1][0]]
        self.assertGreater(len(titles), 14)
        found = []
        for _, title in titles:
            text = "\n".join(text for _, text in page.section(title))
            spans = {kind: re.search(rf"^- \*\*{kind}\.\*\*((?:.|\n)*?)(?=^- \*\*|\Z)", text, re.M) for kind in ("Code", "Tests", "Left")}
            for kind, span in spans.items():
                if span is None or not span[1].strip():
                    found.append(f"{title}: nothing under {kind}")
            if spans["Code"] and not re.search(r"`[\w-]+/[\w./-]+`", spans["Code"][1]):
                found.append(f"{title}: no file under Code")
            stages = re.findall(r'"([^"]+)"', spans["Tests"][1]) if spans["Tests"] else []
            found += [f"{title}: scripts/test has no stage {stage}" for stage in stages if stage not in self.stages()]
            if spans["Tests"] and not stages and not re.search(r"`[\w./-]+\.(rs|py)::\w+`", spans["Tests"][1]):
                found.append(f"{title}: no test under Tests")
        self.assertEqual([], found, "\n" + "\n".join(found))


class Judge(unittest.TestCase):
    """The tests above can fail."""

    def test_mistakes_in_commands_are_found(self):
        def wrong(line):
            return [mistake for words in commands.ours(line) for mistake in commands.mistakes(words)]

        self.assertEqual([], wrong("lictor token create --max-uses 0 --description x"))
        self.assertEqual([], wrong("lictor agent list | drain AGENT [--reason TEXT] | revoke AGENT"))
        self.assertEqual([], wrong("KRB5_CONFIG=./krb5.conf lictor keytab create f --principal a@B"))
        self.assertEqual([], wrong("kubectl exec deploy/lictor-agent -c agent -- lictor-agent doctor --host h"))
        self.assertEqual([], wrong("lictor winrm run --host h --user u -- ipconfig --all"))
        self.assertTrue(wrong("lictor token make"))
        self.assertTrue(wrong("lictor token create --uses 0"))
        self.assertTrue(wrong("kubectl exec deploy/lictor-agent -- lictor-agent examine"))
        self.assertTrue(wrong("cat f | lictor import harness -"))
        self.assertTrue(wrong("lictor agent list | drain AGENT [--because TEXT]"))

    def test_pages_are_taken_apart(self):
        page = Page(ROOT / "x.md", "# A `b` (c)\n\ntext [l](y.md#z) `x\ny`\n\n    lictor task list\n\n```yaml values=a part\nk: v\n```\n## A b c\n")
        self.assertEqual({"a-b-c", "a-b-c-1"}, page.anchors())
        self.assertEqual([(3, "l", "y.md#z")], list(page.links()))
        self.assertEqual([(1, "b"), (3, "x y")], list(page.spans()))
        self.assertEqual(["lictor task list\n", "k: v\n"], [block.text for block in page.blocks])
        self.assertTrue(page.blocks[1].has("part") and page.blocks[1].language == "yaml")
        self.assertEqual([6, 9], [block.line for block in page.blocks])

    def test_values_are_looked_up(self):
        tree = {"properties": {"a": {"properties": {"b": {"type": "string"}}, "additionalProperties": False}}}
        self.assertTrue(holds_path(tree, "a.b"))
        self.assertFalse(holds_path(tree, "a.c"))


if __name__ == "__main__":
    unittest.main()
