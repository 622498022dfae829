"""Runs the tests of one module and writes down how many passed and failed: `python run.py MODULE FILE`.

A test that is skipped has failed: what was promised was not looked at.
"""

import pathlib
import signal
import sys
import unittest


class Result(unittest.TextTestResult):
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.passed, self.failed = 0, set()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.failed.add(test.id())

    def addError(self, test, error):
        super().addError(test, error)
        self.failed.add(test.id())

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.failed.add(test.id())

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.failed.add(test.id())

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.failed.add(test.id())


def main():
    module, counts = sys.argv[1:]
    # So that what tests have registered for their end is done then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    here = pathlib.Path(__file__).resolve().parent
    sys.path.insert(0, str(here))
    suite = unittest.defaultTestLoader.loadTestsFromName(module)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    failed = len(result.failed)
    # A module without a test has lost them.
    if result.passed + failed == 0:
        print(f"{module} holds no tests")
        failed = 1
    pathlib.Path(counts).write_text(f"{result.passed} {failed}\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
