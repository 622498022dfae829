"""The Prometheus rules, the Grafana dashboard and docs/alerts.md, held to docs/metrics.md, to promtool, and to a Prometheus
that scrapes a control plane and an agent at work."""

import json
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.parse

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from local_stack import ROOT, Stack, eventually, get

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "lictor.json").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
# What Prometheus and the collectors of a cluster add to every series.
TARGET_LABELS = {"job", "instance", "namespace"}
# Panels that show nothing in a healthy stack whose one host knows no Kerberos, and why.
EMPTY = {
    "agent_kerberos_tickets_total": "no task used Kerberos",
    "agent_tasks_handed_back_total": "no task was handed back",
    "agent_secrets_opened_total": "no secret came beside a task",
    "control_plane_secrets_fetched_total": "the control plane itself asked AWS for nothing",
    "control_plane_calls_refused_total": "every call was allowed",
    "control_plane_connections_refused_total": "no connection was refused",
}
# Counters may be compared as they are where they count the same things; elsewhere only their growth says something.
RAW_COUNTERS = {"agent_pool_shells_created_total", "agent_pool_shells_deleted_total"}


def setUpModule():
    # promtool and Prometheus itself.
    subprocess.run([ROOT / "scripts" / "install-packages", "prometheus"], check=True, timeout=600)


def documented() -> dict[str, tuple[str, dict[str, set[str]]]]:
    """docs/metrics.md: the kind of each metric, and its labels with their values."""
    metrics = {}
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if not (row := re.match(r"\| `([a-z_]+)` \| (\w+) \| (.*) \|$", line)):
            continue
        name, kind, meaning = row.groups()
        labels = {}
        for part in re.split(r"; (?=label `)", meaning):
            if label := re.search(r"label `(\w+)`: (.*)$", part):
                labels[label[1]] = set(re.findall(r"`(\w+)`", label[2]))
            elif label := re.search(r"label `(\w+)`", part):
                labels[label[1]] = set()
        metrics[name] = (kind, labels)
    return metrics


METRICS = documented()


def dashboard_queries() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def mistakes(expression: str) -> list[str]:
    """What in a query does not fit docs/metrics.md."""
    found = []
    for use in re.finditer(r"(?<![\w:])((?:agent|control_plane)_[a-z_]+)\b(\{[^}]*\})?(\[[^\]]+\])?", expression):
        name, selector, window = use.groups()
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        kind, labels = METRICS.get(name) or (METRICS[base] if METRICS.get(base, ("",))[0] == "histogram" else ("", {}))
        if not kind:
            found.append(f"{name} is not in docs/metrics.md")
            continue
        before = expression[:use.start()].rstrip()
        function = re.search(r"(\w+)\($", before)
        growth = bool(window) and function is not None and function[1] in ("rate", "increase", "irate")
        if kind in ("gauge", "info") and growth:
            found.append(f"{function[1]}() of the {kind} {name}")
        if kind not in ("gauge", "info") and not growth and name not in RAW_COUNTERS:
            found.append(f"the {kind} {name} without rate() or increase()")
        if kind == "counter" and not name.endswith("_total"):
            found.append(f"the counter {name} without _total")
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector or ""):
            if label in TARGET_LABELS:
                continue
            if label not in labels:
                found.append(f"{name} has no label {label}")
            elif unknown := set(value.split("|")) - labels[label]:
                found.append(f"{name}: {label} is never {', '.join(sorted(unknown))}")
    for grouping in re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", expression):
        known = TARGET_LABELS | {"le"} | {label for name, (_, labels) in METRICS.items() if name in expression for label in labels}
        for label in filter(None, (word.strip() for word in grouping.split(","))):
            if label not in known:
                found.append(f"groups by {label}, which nothing in it has")
    for name in re.findall(r"\blictor:[a-z0-9_:]+", expression):
        if name not in RECORDED:
            found.append(f"{name} is not recorded")
    return found


class Documents(unittest.TestCase):
    """What can be said without running anything."""

    def test_the_page_of_metrics_is_read(self):
        self.assertGreater(len(METRICS), 40)
        self.assertEqual(METRICS["agent_tasks_finished_total"],
                         ("counter", {"outcome": {"succeeded", "failed", "cancelled", "timed_out", "unknown"}}))

    def test_a_wrong_query_is_noticed(self):
        for expression, mistake in {
            "rate(agent_slots_free[5m])": "gauge",
            "agent_tasks_finished_total": "without rate",
            'rate(agent_tasks_finished_total{outcome="sucess"}[5m])': "never sucess",
            'rate(agent_tasks_finished_total{state="failed"}[5m])': "no label state",
            "rate(agent_tasks_ended_total[5m])": "not in docs",
            "sum by (host) (agent_slots_free)": "groups by host",
            "lictor:nothing:ratio > 1": "not recorded",
        }.items():
            self.assertIn(mistake, "; ".join(mistakes(expression)), expression)

    def test_rules_and_panels_ask_for_what_there_is(self):
        wrong = []
        for rule in (rule for group in RULES["groups"] for rule in group["rules"]):
            wrong += [f"{rule.get('alert') or rule['record']}: {mistake}" for mistake in mistakes(rule["expr"])]
        for title, expression in dashboard_queries():
            wrong += [f"{title}: {mistake}" for mistake in mistakes(expression)]
        self.assertEqual(wrong, [])

    def test_every_metric_that_matters_is_shown(self):
        shown = " ".join([expression for _, expression in dashboard_queries()] + [rule["expr"] for rule in ALERTS])
        # Figures that belong beside others in a query of somebody who looks for something.
        left_out = {"agent_bootstrap_duration_seconds", "agent_bootstrap_failed_commands", "agent_bootstrap_left_processes",
                    "control_plane_storage_failures_total", "control_plane_tasks_assigned"}
        missing = {name for name in METRICS if not re.search(rf"\b{name}(_bucket)?\b", shown)}
        self.assertEqual(missing, left_out)

    def test_alerts_say_what_they_must(self):
        self.assertEqual(len({rule["alert"] for rule in ALERTS}), len(ALERTS))
        for rule in ALERTS:
            with self.subTest(rule["alert"]):
                self.assertRegex(rule["alert"], r"^Lictor[A-Z]\w+$")
                self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"))
                self.assertEqual(set(rule["annotations"]), {"summary", "description", "remedy", "runbook"})
                self.assertEqual(rule["annotations"]["runbook"], f"docs/alerts.md#{rule['alert'].lower()}")
                self.assertIn("$labels.instance", rule["annotations"]["summary"])

    def test_the_page_of_alerts_says_the_same(self):
        sections = re.split(r"^### ", (ROOT / "docs" / "alerts.md").read_text(), flags=re.M)[1:]
        page = {}
        for section in sections:
            name, text = section.split("\n", 1)
            page[name] = " ".join(re.split(r"^## ", text, flags=re.M)[0].split())
        self.assertEqual(list(page), [rule["alert"] for rule in ALERTS])
        for rule in ALERTS:
            after = f" after {rule['for']}." if "for" in rule else ", at once."
            self.assertTrue(page[rule["alert"]].startswith(f"`{rule['labels']['severity']}`{after} "), rule["alert"])
            self.assertTrue(page[rule["alert"]].endswith(f" **What to do.** {rule['annotations']['remedy']}"), rule["alert"])

    def test_documents_that_alerts_name_exist(self):
        for rule in ALERTS:
            for name in re.findall(r"\b([a-z-]+\.md)\b", rule["annotations"]["remedy"]):
                self.assertTrue((ROOT / "docs" / name).is_file(), name)

    def test_the_dashboard_is_of_grafanas_own_schema(self):
        # Grafana's own types read it and write it again; what they do not know is lost on the way.
        written = json.loads(json.dumps(Dashboard.from_json(DASHBOARD), cls=JSONEncoder))
        # Known to Grafana and missing in the types: labels of annotations, and what a variable was typed as.
        unknown = {"titleFormat", "textFormat", "definition"}
        self.assertEqual([path for path in lost(DASHBOARD, written) if path.rsplit("/", 1)[1] not in unknown], [])
        misspelled = {"panels": [{"type": "stat", "tittle": "Agents"}]}
        written = json.loads(json.dumps(Dashboard.from_json(misspelled), cls=JSONEncoder))
        self.assertEqual(lost(misspelled, written), ["/panels/0/tittle"])

    def test_panels_are_in_order(self):
        taken = {}
        identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
        self.assertEqual(len(identifiers), len(set(identifiers)))
        for panel in DASHBOARD["panels"]:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertNotIn((x, y), taken, f"{panel['title']} lies on {taken.get((x, y))}")
                    taken[x, y] = panel["title"]
            if panel["type"] == "row":
                continue
            self.assertTrue(panel["description"], panel["title"])
            self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])
            for target in panel["targets"]:
                self.assertEqual(target["datasource"]["uid"], "${datasource}", panel["title"])
                self.assertIn('namespace=~"$namespace"', target["expr"], panel["title"])
                if target["expr"].count("agent_") and "control_plane_" not in target["expr"]:
                    self.assertIn('instance=~"$agent"', target["expr"], panel["title"])
        self.assertEqual([variable["name"] for variable in DASHBOARD["templating"]["list"]], ["datasource", "namespace", "agent"])


class Promtool(unittest.TestCase):
    def promtool(self, *arguments, expect_success=True):
        done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(done.returncode == 0, expect_success, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_rules_are_good(self):
        self.promtool("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "rules.yaml")

    def test_each_alert_fires_when_it_must_and_only_then(self):
        tests = yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]
        names = [test["name"] for test in tests]
        self.assertEqual(names, [f"{rule['alert']} {end}" for rule in ALERTS for end in ("fires", "is silent")])
        for test in tests:
            samples = test["promql_expr_test"][0]["exp_samples"]
            self.assertEqual(bool(samples), test["name"].endswith("fires"), test["name"])
        self.promtool("test", "rules", PROMETHEUS / "rules_test.yaml")

    def test_a_changed_threshold_is_noticed(self):
        with tempfile.TemporaryDirectory(prefix="lictor-rules-") as work:
            text = (PROMETHEUS / "rules.yaml").read_text()
            changed = text.replace("agent_pool_waiting_tasks > 0", "agent_pool_waiting_tasks > 100")
            self.assertNotEqual(text, changed)
            pathlib.Path(work, "rules.yaml").write_text(changed)
            pathlib.Path(work, "rules_test.yaml").write_text((PROMETHEUS / "rules_test.yaml").read_text())
            said = self.promtool("test", "rules", pathlib.Path(work, "rules_test.yaml"), expect_success=False)
            self.assertIn("LictorPoolWaiting", said)


class AtWork(unittest.TestCase):
    """A Prometheus scrapes a control plane and an agent while they work, with the rules loaded."""

    @classmethod
    def setUpClass(cls):
        cls.stack = Stack()
        try:
            cls.stack.start()
            cls.start_prometheus()
        except BaseException:
            cls.stack.stop()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.stack.stop()

    @classmethod
    def start_prometheus(cls):
        work = cls.stack.work
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(PROMETHEUS / "rules.yaml")],
            # Jobs with other names than in the tests of the rules, as other installations have them.
            "scrape_configs": [
                {"job_name": "windows-agents", "static_configs": [{"targets": [cls.stack.agent_http]}]},
                {"job_name": "tasks", "static_configs": [{"targets": [cls.stack.control_plane_http]}]},
            ],
        }
        (work / "prometheus.yaml").write_text(yaml.safe_dump(settings))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        cls.prometheus = f"http://{address}"
        process = cls.stack.spawn("prometheus", ["prometheus", f"--config.file={work / 'prometheus.yaml'}",
                                                 f"--storage.tsdb.path={work / 'tsdb'}", f"--web.listen-address={address}"])

        def up():
            if process.poll() is not None:
                raise AssertionError(f"prometheus ended:\n{cls.stack.log('prometheus')}")
            targets = cls.api("targets")["activeTargets"]
            # Its own answer, and not that of another program on the port: it names the targets of this run.
            return {t["scrapeUrl"] for t in targets if t["health"] == "up"} == {
                f"http://{cls.stack.agent_http}/metrics", f"http://{cls.stack.control_plane_http}/metrics"}
        eventually("the first scrape of both", up)

    @classmethod
    def api(cls, path: str, **parameters: str):
        answer = json.loads(get(f"{cls.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        if answer["status"] != "success":
            raise AssertionError(answer)
        return answer["data"]

    def test_panels_show_something_and_no_alert_fires(self):
        # Work of every kind: a test, commands that succeed, one that fails, one whose program does not end in time.
        self.stack.submit("--test")
        for _ in range(3):
            self.stack.submit("--", "hostname")
        self.stack.submit("--", "sim.exe bytes 100000")
        self.stack.submit("--", "exit 3", expect=3)
        self.stack.submit("--timeout", "2s", "--", "sim.exe sleep 60000", expect=124)
        submitted = 7
        # The figures that are scraped are those of this work. Growth needs a scrape before and one after, so some more.
        eventually("the scrape of what was submitted", lambda: [
            1 for sample in self.api("query", query="control_plane_tasks_submitted_total")["result"] if int(sample["value"][1]) == submitted])
        first = time.time()
        self.stack.submit("--", "hostname")
        eventually("a scrape after that", lambda: [
            1 for sample in self.api("query", query="control_plane_tasks_submitted_total")["result"] if int(sample["value"][1]) == submitted + 1])
        eventually("two scrapes more", lambda: time.time() > first + 3 or None)

        empty, wrong = [], []
        for title, expression in dashboard_queries():
            for variable, value in (("$namespace", ".*"), ("$agent", ".*"), ("$__rate_interval", "5m")):
                expression = expression.replace(variable, value)
            self.assertNotIn("$", expression, title)
            result = self.api("query", query=expression)["result"]
            if not any(sample["value"][1] != "NaN" for sample in result):
                name = next(iter(re.findall(r"(?:agent|control_plane)_[a-z_]+", expression)))
                (empty if name in EMPTY else wrong).append(f"{title}: {expression}")
        self.assertEqual(wrong, [], "these panels show nothing")
        self.assertEqual(len(empty), len(EMPTY), empty)

        for name, query in (("namespace", "label_values"), ("agent", "label_values")):
            variable = next(v for v in DASHBOARD["templating"]["list"] if v["name"] == name)
            selector, label = re.fullmatch(rf"{query}\((.*), (\w+)\)", variable["query"]["query"]).groups()
            self.assertTrue(self.api("series", **{"match[]": selector.replace("$namespace", ".*")}), name)
            self.assertIn(label, TARGET_LABELS)

    def test_rules_are_evaluated_and_only_what_was_provoked_is_told(self):
        def evaluated():
            groups = self.api("rules")["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None
        rules = eventually("the first evaluation of all rules", evaluated)
        self.assertEqual(len(rules), sum(len(group["rules"]) for group in RULES["groups"]))
        self.assertEqual([(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"], [])
        self.assertEqual([rule["name"] for rule in rules if rule["type"] == "alerting" and rule["state"] == "firing"], [])
        for name in ("lictor:agent_slots_used:ratio", "lictor:agent_pool_warm_leases:ratio_rate15m"):
            self.assertIn(name, {rule["name"] for rule in rules})
        self.assertTrue(self.api("query", query="lictor:agent_slots_used:ratio")["result"])
        # That silence means something: the same rules, when the agent is gone for as long as it takes, are pending.
        agent = next(process for process in self.stack.processes if process.name == "agent")
        agent.terminate()
        self.assertEqual(agent.wait(timeout=60), 0)
        pending = eventually("the alerts of an agent that is gone", lambda: {"LictorAgentDown", "LictorNoAgents"} <= {
            alert["labels"]["alertname"] for alert in self.api("alerts")["alerts"]} or None)
        self.assertTrue(pending)


def lost(source, written, path="") -> list[str]:
    """What of `source` is not in `written`, by its place."""
    if isinstance(source, dict) and isinstance(written, dict):
        return [place for key, value in source.items()
                for place in (lost(value, written[key], f"{path}/{key}") if key in written else [f"{path}/{key}"])]
    if isinstance(source, list) and isinstance(written, list) and len(source) == len(written):
        return [place for number, (one, other) in enumerate(zip(source, written, strict=True))
                for place in lost(one, other, f"{path}/{number}")]
    return [] if source == written else [path]


if __name__ == "__main__":
    unittest.main()
