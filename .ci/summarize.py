"""summarize.py RESULTS [BROKEN_STEP...]: adds up JUnit files and names what failed or was skipped.

Exit status 1 if a test failed, a step broke, a skip has no leave, or a suite that must run did not.
"""

import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

MAY_SKIP = re.compile("gpu|cuda", re.IGNORECASE)
# Suites that must have run, and what must have run in them: those that need the public data sets
# are registered only where these lie, so their absence would otherwise go unseen.
MUST_RUN = {
    "release-ctest": ["WordPieceVectors"],
    "release-pytest": [
        "test_the_converted_package_on_real_rows",
        "test_the_dense_model_is_right_on_92_percent",
        "test_the_99_percent_point_runs_55_percent_of_the_flops",
        "test_a_flop_fraction_is_met",
    ],
    "asan-ctest": ["WordPieceVectors"],
    "asan-pytest": ["test_the_converted_package_on_real_rows"],
    "tsan-ctest": [],
    "package-pytest": ["test_it_serves$", "test_purge"],
}


def skip_reason(case: ElementTree.Element, skipped: ElementTree.Element) -> str:
    output = case.findtext("system-out") or ""
    gtest = re.search(r": Skipped\n(.*)", output)
    return gtest.group(1).strip() if gtest else skipped.get("message", "no reason given")


def main() -> int:
    results, broken = pathlib.Path(sys.argv[1]), sys.argv[2:]
    passed = failed = skipped = 0
    problems = []
    for suite in sorted(set(MUST_RUN) | {path.stem for path in results.glob("*.xml")}):
        path = results / f"{suite}.xml"
        cases = list(ElementTree.parse(path).iter("testcase")) if path.exists() else []
        names = [f"{case.get('classname')}.{case.get('name')}" for case in cases]
        counts = [0, 0, 0]
        for case in cases:
            name = f"{suite}: {case.get('name')}"
            skip = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                counts[1] += 1
                print(f"FAILED  {name}")
            elif skip is not None or case.get("status") in ("notrun", "disabled"):
                counts[2] += 1
                reason = skip_reason(case, skip) if skip is not None else "not run"
                print(f"SKIPPED {name}: {reason}")
                if not MAY_SKIP.search(name):
                    problems.append(f"{name} may not skip")
            else:
                counts[0] += 1
        print(f"{suite}: {counts[0]} passed, {counts[1]} failed, {counts[2]} skipped")
        passed, failed, skipped = passed + counts[0], failed + counts[1], skipped + counts[2]
        if not cases:
            problems.append(f"{suite} did not run")
        for wanted in MUST_RUN.get(suite, []):
            if not any(re.search(wanted, name) for name in names):
                problems.append(f"{suite}: no test matches {wanted}")
    problems += [f"{step} failed" for step in broken]
    for problem in problems:
        print(f"FAILED  {problem}")
    failed += len(problems)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
