"""The JSON schemas of the programs' settings, judged by a validator that others wrote.

The same files are given to the programs' loaders by their own tests (`agent/src/config/reference.rs` and its like): what is good
for one must be good for the other, and what the schema can know to be bad, must be bad for both.
"""

import json
import pathlib
import re
import unittest

import jsonschema
import yaml

TOP = pathlib.Path(__file__).resolve().parents[2]
CASES = TOP / "tests/deploy/settings"
PROGRAMS = ("agent", "control-plane")
FILES = {"agent": "agent-settings", "control-plane": "control-plane-settings", "policy": "policy"}
DRAFTS = (jsonschema.Draft7Validator, jsonschema.Draft202012Validator)


class Yaml(yaml.SafeLoader):
    """As YAML 1.2 has it, and as the programs read it: `off` is text."""


Yaml.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def schema(kind):
    return json.loads((TOP / f"docs/{FILES[kind]}.schema.json").read_text())


def mistakes(program, text, loader=Yaml):
    values = yaml.load(text, loader)
    found = [[error.message for error in draft(schema(program)).iter_errors(values)] for draft in DRAFTS]
    assert found[0] == found[1], "the drafts do not agree"
    return found[0]


def uncommented(text):
    return re.sub("^#(?=[a-z]|  )", "", text, flags=re.MULTILINE)


class Settings(unittest.TestCase):
    def test_schemas_are_schemas(self):
        for program in FILES:
            for draft in DRAFTS:
                draft.check_schema(schema(program))

    def test_every_object_is_closed_or_has_keys_of_the_users_choice(self):
        def visit(path, node):
            if isinstance(node, dict):
                if node.get("type") == "object":
                    self.assertIn("additionalProperties", node, path)
                    self.assertIsNot(node["additionalProperties"], True, path)
                self.assertNotIn("$ref", node, path)
                for key, value in node.items():
                    visit(f"{path}/{key}", value)

        for program in FILES:
            visit(program, schema(program))

    def test_examples_are_good_with_and_without_their_comments(self):
        for program in PROGRAMS:
            text = (TOP / f"deploy/{program}.example.yaml").read_text()
            for form in (text, uncommented(text)):
                self.assertEqual(mistakes(program, form if yaml.safe_load(form) else "{}"), [], program)
            self.assertEqual(
                {key for key in yaml.safe_load(uncommented(text))}, set(schema(program)["properties"]), program
            )

    def test_good_files_are_good_and_bad_ones_bad(self):
        for program in FILES:
            files = sorted((CASES / program).glob("*.yaml"))
            self.assertGreater(len(files), 10, program)
            for file in files:
                found = mistakes(program, file.read_text())
                with self.subTest(file=file.name):
                    self.assertEqual(bool(found), file.name.startswith("bad-"), found)

    def test_off_is_good_as_old_yaml_reads_it(self):
        self.assertEqual(mistakes("agent", "admission: {cpu_percent: off}", yaml.SafeLoader), [])


if __name__ == "__main__":
    unittest.main()
