"""The table of values in a chart's README, made of the comments in its values.yaml, and the keys of all three.

A comment that begins with `# -- ` belongs to the key below it.
"""

import json
import re
import tomllib

import yaml

from .rendering import CHARTS, REPOSITORY

BEGIN, END = "<!-- values: made by tests/deploy/test_chart.py -->", "<!-- end of values -->"
# Schemas of the programs' settings, made from the code.
SETTINGS = {
    "lictor-agent": "docs/agent-settings.schema.json",
    "lictor-control-plane": "docs/control-plane-settings.schema.json",
}

PERHAPS_SECRET = ("control_plane", "proxy.url", "proxy.username", "telemetry.otlp_endpoint")
# Prefixes of the names that templates define.
DEFINED = {"lictor-agent": "lictor", "lictor-control-plane": "lictorControlPlane"}


def defaults_template(chart):
    """The template that puts the chart's defaults back where values are null; templates cannot read values.yaml."""
    text = json.dumps(defaults(chart), indent=1, ensure_ascii=False)
    head = "{{/* Made of values.yaml by the tests of the charts. */}}\n"
    return f'{head}{{{{- define "{DEFINED[chart]}.defaults" -}}}}\n{text}\n{{{{- end -}}}}\n'


def comments(chart):
    """The text of each key that has one, by its path."""
    found, stack, text = {}, [], []
    for line in (CHARTS / chart / "values.yaml").read_text().splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            text = [stripped[5:]]
        elif stripped.startswith("#"):
            if text:
                text.append(stripped.lstrip("#").strip())
        elif not stripped:
            text = []
        else:
            key = re.match(r"( *)([A-Za-z_][A-Za-z0-9_]*):(?: |$)", line)
            if key is None:
                continue
            depth = len(key[1]) // 2
            stack = [*stack[:depth], key[2]]
            if text:
                found[".".join(stack)] = " ".join(text)
            text = []
    return found


def leaves(chart):
    """Every value that is documented by itself, with its default: what has a comment is not looked into."""
    described = comments(chart)

    def walk(tree, path):
        for key, value in tree.items():
            here = [*path, key]
            if isinstance(value, dict) and value and ".".join(here) not in described:
                yield from walk(value, here)
            else:
                yield ".".join(here), value

    return dict(walk(defaults(chart), []))


def about(chart):
    return yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())


def version():
    """That of the workspace."""
    return tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def defaults(chart):
    return yaml.safe_load((CHARTS / chart / "values.yaml").read_text())


def schema(chart):
    return json.loads((CHARTS / chart / "values.schema.json").read_text())


def schema_text(chart):
    """The schema as it should be: the settings under `config` are those that the program's own schema knows."""
    whole = schema(chart)
    settings = REPOSITORY / SETTINGS[chart]
    if settings.exists():
        known = bare(json.loads(settings.read_text()))
        whole["properties"]["config"] = {
            **{key: known[key] for key in ("additionalProperties", "properties")},
            "type": ["object", "null"],
        }
        # Messages of a schema repeat what they refuse. The templates look at what may hold a password, and name it only.
        for path in PERHAPS_SECRET:
            node = whole["properties"]["config"]
            for key in path.split("."):
                node = node.get("properties", {}).get(key, {})
            node.pop("pattern", None)
    if chart == "lictor-agent":
        rules = bare(json.loads((REPOSITORY / "docs/policy.schema.json").read_text()))
        whole["properties"]["policy"]["properties"]["rules"] = {
            **{key: rules[key] for key in ("additionalProperties", "properties")},
            "type": ["object", "null"],
        }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def bare(node):
    """A schema without what is for people, who read about settings elsewhere."""
    if isinstance(node, list):
        return [bare(one) for one in node]
    if not isinstance(node, dict):
        return node
    left = {
        key: bare(value)
        for key, value in node.items()
        if key not in ("description", "default", "examples", "properties")
    }
    if "properties" in node:
        left["properties"] = {key: bare(value) for key, value in node["properties"].items()}
    return left


def schema_keys(chart):
    """Every path of the schema whose structure is ours (`additionalProperties` is false) down to what is documented."""
    described = comments(chart)

    def walk(node, path):
        for key, value in node.get("properties", {}).items():
            here = [*path, key]
            if value.get("additionalProperties") is False and ".".join(here) not in described:
                yield from walk(value, here)
            else:
                yield ".".join(here)

    return set(walk(schema(chart), []))


def table(chart):
    described = comments(chart)
    rows = ["| Value | Default | Meaning |", "|---|---|---|"]
    for path, default in leaves(chart).items():
        meaning = described.get(path, "").replace("|", "\\|")
        shown = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
        rows.append(f"| `{path}` | `{shown}` | {meaning} |")
    return "\n".join(rows)


def readme(chart):
    """The page as it should be."""
    page = (CHARTS / chart / "README.md").read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or not after:
        raise AssertionError(f"README.md of {chart} lacks the marks of its table")
    return f"{before}{BEGIN}\n\n{table(chart)}\n\n{END}{after}"
