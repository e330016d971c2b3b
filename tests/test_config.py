"""Good and bad files under tests/config, each bad one with its complete message; and whatever else a file may hold."""

import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlexporter import config, scalars, strict_yaml
from mlexporter.config import ColumnConfig, Config, ConfigError, Window
from mlexporter.config_document import KeyPath

HERE = Path(__file__).parent / "config"
DOCS = Path(__file__).parent.parent / "docs" / "configuration.md"

X57 = "x" * 57
TEXT = "text of 1 to 128 characters without control characters"
ZONE = "an IANA name such as Europe/Berlin or UTC"
UNITS = ", in units w, d, h, m, s, ms, largest first, such as 7d or 1h30m"
SIZE = "a size from 1KiB to 1GiB: bytes, or a number with B, kB, MB, GB, KiB, MiB or GiB"
LIST = 'a list, each item on a line of its own after "- " or all of them in [brackets]'
STORE = "redis://HOST:PORT/DATABASE, rediss://... for TLS, or unix:///PATH"
MAPPING = 'a mapping, "key: value" lines'
NO_BASELINE = (
    "missing, and discovery is off; give a file that `mlexporter baseline build` has written, "
    "or set discovery.enabled: true to learn one from the model's traffic"
)

BAD: dict[str, list[str]] = {
    "alarm_of_a_column": [
        "5:51: models[0].columns.age.page_tolerance: 0.04 is under warn_tolerance, 0.05; pages are for larger drift",
        "6:30: models[0].columns.plan.warn_tolerance: 11 is out of range; use a number from 0 to 10",
        "6:50: models[0].columns.plan.page_tolerance: -1 is out of range; use a number from 0 to 10",
        '7:24: models[0].columns.income.season: "yearly" is not a boolean; use true or false',
        f"7:42: models[0].columns.income.timezone: is a list; use {ZONE}",
    ],
    "alias_to_itself": [
        f"1:9: models[0]: is a list; use {MAPPING}",
    ],
    "anchor_twice": [
        "1:18: not valid YAML: an anchor of this name stands above already; give it another name",
    ],
    "bell": [
        "2:11: not valid YAML: the character U+0007 may not stand in a file",
    ],
    "classes": [
        "5:27: models[0].prediction.classes: of no use with task regression; leave it out, or set another task",
        "9:27: models[1].prediction.classes: has 3 classes, and task is binary; "
        "name the negative one, then the positive one",
        '13:44: models[2].prediction.classes[3]: "one" is classes[1] already; name each class once',
        "17:16: models[3].prediction.classes: has 1 items; use 2 to 20",
    ],
    "colon": [
        '2:16: not valid YAML: a ":" where none may stand; check indentation, and quote text with ": "',
    ],
    "column_of_time_twice": [
        '4:34: models[0].data.time: "ts" is the column of prediction already; name another',
    ],
    "column_type": [
        '5:25: models[0].columns["fee (EUR)"].type: "money" is not one of numeric, categorical, boolean',
    ],
    "complex_key": [
        "2:5: limits: a key here is a mapping; use plain text",
        "4:3: limits: a key here is a list; use plain text",
    ],
    "control_character": [
        f'2:11: models[0].name: "churn\\n" has a control character; use {TEXT}',
        f'3:14: models[0].version: "\\ud800" has a control character; use {TEXT}',
        '4:15: models[0].baseline: "a\\u0000b.json" has a control character; use the name of a file',
    ],
    "document_is_list": [
        f"1:1: the document is a list; use {MAPPING}",
    ],
    "document_is_text": [
        f'1:1: the document is the single value "just some words"; use {MAPPING}',
    ],
    "duplicate_column": [
        "6:7: models[0].columns.plan: given twice, first on line 5; keep one",
    ],
    "duplicate_key": [
        "4:3: limits.max_series: given twice, first on line 2; keep one",
    ],
    "duplicate_section": [
        "3:1: windows: given twice, first on line 1; keep one",
    ],
    "durations": [
        f'1:11: windows[0]: "1.5h" is not a duration; use a duration from 1m to 31d{UNITS}',
        f'1:17: windows[1]: "30m1h" is not a duration; use a duration from 1m to 31d{UNITS}',
        f'1:24: windows[2]: "1 h" is not a duration; use a duration from 1m to 31d{UNITS}',
        f'1:29: windows[3]: "10y" is not a duration; use a duration from 1m to 31d{UNITS}',
    ],
    "empty_name": [
        f"2:10: models[0].name: is empty; use {TEXT}",
        f'4:11: models[1].name: "" has 0 characters; use {TEXT}',
    ],
    "escape": [
        "1:14: not valid YAML: a number that names no character or version",
    ],
    "indentation": [
        "4:4: not valid YAML: this does not continue what stands above; check indentation and brackets",
    ],
    "label_store": [
        f"2:10: labels.store: is no URL of a Redis server; use {STORE}",
        "3:13: labels.max_rows: 10 is out of range; use a whole number from 1000 to 100000000",
    ],
    "label_store_password": [
        f'4:13: models[0].labels: is the single value "redis://..."; use {MAPPING}',
        '5:10: labels["redis://..."]: unknown key; known here are store, max_rows',
        f"5:45: labels.store: names no server, or no port of one; use {STORE}",
    ],
    "latin1": [
        "2:12: not UTF-8: the byte 0xfc; save the file as UTF-8",
    ],
    "long_name": [
        f'2:11: models[0].name: "{X57}..." has 129 characters; use {TEXT}',
    ],
    "many_at_once": [
        f'1:15: windows[1]: "90" has no unit; use a duration from 1m to 31d{UNITS}',
        '4:11: models[0].task: "binray" is not one of binary, multiclass, regression; did you mean binary?',
        f'6:23: models[0].labels.horizon: "7" has no unit; use a duration from 1m to 365d{UNITS}',
        "7:5: models[1].nmae: unknown key; did you mean name?",
        f"7:5: models[1].name: missing, and required; use {TEXT}",
        '9:22: models[1].columns.amount.type: "float" is not one of numeric, categorical, boolean',
        "9:29: models[1].columns.amount.export_name: unknown key; did you mean export_names?",
        "10:44: limits.max_series: 10 is out of range; use a whole number from 100 to 10000000",
        '11:22: discovery.enabled: "on" is not a boolean; use true or false',
    ],
    "merge_key": [
        '3:3: discovery["<<"]: merge keys are not taken; write the keys out',
    ],
    "missing_name": [
        f"2:5: models[0].name: missing, and required; use {TEXT}",
    ],
    "model_is_text": [
        f'2:5: models[0]: is the single value "churn"; use {MAPPING}',
        f"3:5: models[1]: is a list; use {MAPPING}",
    ],
    "no_baseline": [
        f"2:5: models[0].baseline: {NO_BASELINE}",
    ],
    "no_unit": [
        f'2:17: discovery.learn_period: "3600" has no unit; use a duration from 1s to 90d{UNITS}',
    ],
    "not_a_number": [
        '1:29: detection.warn_tolerance: ".nan" is not a number; use a number from 0 to 1',
        '1:51: detection.page_tolerance: "1_0" is not a number; use a number from 0 to 1',
    ],
    "not_whole": [
        '1:28: discovery.learn_samples: "2e3" is not a whole number; use a whole number from 200 to 1000000',
        '1:45: discovery.max_models: "1.5" is not a whole number; use a whole number from 1 to 1000',
        '1:63: discovery.max_columns: "many" is not a whole number; use a whole number from 1 to 10000',
    ],
    "one_column_two_roles": [
        '4:34: models[0].data.label: "y" is the column of prediction already; name another',
    ],
    "open_bracket": [
        "2:7: not valid YAML: expected ',' or ']', but got ':' (while parsing a flow sequence that begins on line 1)",
    ],
    "open_quote": [
        "3:1: not valid YAML: found unexpected end of stream (while scanning a quoted scalar that begins on line 2)",
    ],
    "out_of_range": [
        "1:28: discovery.learn_samples: 199 is out of range; use a whole number from 200 to 1000000",
        "1:45: discovery.max_models: 0 is out of range; use a whole number from 1 to 1000",
        "1:61: discovery.max_columns: 99999999999999999999999 is out of range; use a whole number from 1 to 10000",
        "2:29: detection.page_tolerance: 1.01 is out of range; use a number from 0 to 1",
        "2:51: detection.warn_tolerance: -0.1 is out of range; use a number from 0 to 1",
    ],
    "quoted_number": [
        '1:22: limits.max_series: "50000" is quoted text; use a whole number from 100 to 10000000, unquoted',
        '2:22: discovery.enabled: "true" is quoted text; use true or false, unquoted',
    ],
    "same_model_twice": [
        '3:12: models[1].name: "churn", version "7", is models[0] already; each entry needs another',
        '5:12: models[3].name: "fraud", version "unversioned", is models[2] already; each entry needs another',
        '6:12: models[4].name: "fraud", version "unversioned", is models[2] already; each entry needs another',
    ],
    "size": [
        f'1:26: limits.max_body_bytes: "16mb" is not a size; use {SIZE}',
    ],
    "size_out_of_range": [
        f"1:26: limits.max_body_bytes: 2GiB is out of range; use {SIZE}",
    ],
    "tab": [
        "2:1: not valid YAML: a tab where only spaces may stand; indent with spaces",
    ],
    "tag": [
        "1:9: not valid YAML: tags such as !!str are not taken",
    ],
    "task": [
        '3:11: models[0].task: "binray" is not one of binary, multiclass, regression; did you mean binary?',
    ],
    "threshold_of_regression": [
        "5:29: models[0].prediction.threshold: of no use with task regression; leave it out, or set task: binary",
    ],
    "tolerances": [
        "1:29: detection.warn_tolerance: page_tolerance 0.02 is not above warn_tolerance 0.05; "
        "pages are for larger drift",
    ],
    "timezones": [
        '5:23: models[0].columns.age.timezone: "Europe/Berlim" is no time zone; did you mean Europe/Berlin? '
        f"accepted is {ZONE}",
        f'6:24: models[0].columns.plan.timezone: "../UTC" is no time zone; accepted is {ZONE}',
        f'7:23: detection.timezone: "CEST" is no time zone; accepted is {ZONE}',
    ],
    "two_documents": [
        "2:1: not valid YAML: a second document begins; leave one in the file",
    ],
    "undefined_alias": [
        "1:9: not valid YAML: found undefined alias 'nothing'",
    ],
    "unknown_key": [
        "1:1: windwos: unknown key; did you mean windows?",
    ],
    "unknown_key_far": [
        "2:3: limits.colour: unknown key; known here are max_body_bytes, max_series, max_versions",
    ],
    "unknown_key_nested": [
        "5:14: models[0].columns.plan.typ: unknown key; did you mean type?",
    ],
    "utf16": [
        "1:1: not UTF-8: the byte 0xff; save the file as UTF-8",
    ],
    "value_missing": [
        "2:14: limits.max_series: is empty; use a whole number from 100 to 10000000",
        f"5:22: detection.false_alarm_every: is empty; use a duration from 1h to 3650d{UNITS}",
    ],
    "windows_no_list": [
        f'1:10: windows: is the single value "1h"; use {LIST}',
    ],
    "windows_none": [
        "1:10: windows: has 0 items; use 1 to 5",
    ],
    "windows_out_of_range": [
        f"1:11: windows[0]: 30s is out of range; use a duration from 1m to 31d{UNITS}",
        f"1:16: windows[1]: 32d is out of range; use a duration from 1m to 31d{UNITS}",
        f"1:21: windows[2]: 0s is out of range; use a duration from 1m to 31d{UNITS}",
    ],
    "windows_too_many": [
        "1:10: windows: has 6 items; use 1 to 5",
    ],
    "windows_twice": [
        "1:20: windows[2]: 60m is windows[0] already; name each window once",
    ],
    "wrong_kinds": [
        f'1:9: models: is the single value "churn"; use {LIST}',
        f"2:12: detection: is a list; use {MAPPING}",
        f'3:12: discovery: is the single value "true"; use {MAPPING}',
        "5:15: limits.max_series: is a list; use a whole number from 100 to 10000000",
        "6:17: limits.max_versions: is a mapping; use a whole number from 1 to 1000",
    ],
    "yes_is_no_boolean": [
        '1:22: discovery.enabled: "yes" is not a boolean; use true or false',
    ],
}


def messages(error: ConfigError) -> list[str]:
    return [line.removeprefix(f"{error.name}:") for line in str(error).split("\n")]


def refusal(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, name="f.yml")
    return messages(caught.value)


def test_the_table_names_every_bad_file() -> None:
    assert sorted(BAD) == sorted(path.stem for path in (HERE / "bad").iterdir())


@pytest.mark.parametrize("name", BAD)
def test_bad_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE / "bad")
    with pytest.raises(ConfigError) as caught:
        config.load(Path(f"{name}.yml"))
    assert str(caught.value).split("\n") == [f"{name}.yml:{message}" for message in BAD[name]]


@pytest.mark.parametrize("path", sorted((HERE / "good").iterdir()), ids=lambda path: path.stem)
def test_good_file(path: Path) -> None:
    assert isinstance(config.load(path), Config)


def good(name: str) -> Config:
    return config.load(HERE / "good" / f"{name}.yml")


def test_everything() -> None:
    read = good("everything")
    (model,) = read.models
    assert (model.name, model.version, model.task) == ("churn", "7", "binary")
    assert model.baseline == HERE / "good" / "baselines" / "churn-7.json"
    assert (model.prediction.classes, model.prediction.threshold) == (("no", "yes"), 0.5)
    assert model.labels.horizon == 14 * 86400
    assert model.columns == {
        "plan": ColumnConfig(type="categorical"),
        "postcode": ColumnConfig(type="categorical", export_names=False),
        "monthly fee (EUR)": ColumnConfig(type="numeric", warn_tolerance=0.01, page_tolerance=0.1),
        "age": ColumnConfig(warn_tolerance=0.05, page_tolerance=0.05, season=False),
        "basket": ColumnConfig(page_tolerance=10.0, season=True, timezone="America/New_York"),
    }
    assert msgspec.structs.astuple(model.data) == ("score", "churned", "request_id", "model_version", "took", "sent_at")
    assert read.windows == (Window(300, "5m"), Window(5400, "1h30m"), Window(86400, "24h"), Window(604800, "1w"))
    assert msgspec.structs.astuple(read.detection) == (90 * 86400, 0.002, 0.05, "Europe/Berlin")
    assert msgspec.structs.astuple(read.discovery) == (True, 5000, 604800, 4, 100)
    assert msgspec.structs.astuple(read.labels) == ("rediss://:secret@cache.example:6380/1", 50000)
    assert msgspec.structs.astuple(read.limits) == (32 * 1024**2, 20000, 3)


@pytest.mark.parametrize("name", ["empty", "only_comments", "empty_sections"])
def test_an_empty_file_means_the_defaults(name: str) -> None:
    assert good(name) == Config()


def test_without_a_file_models_are_discovered() -> None:
    assert config.default() == Config(discovery=config.DiscoveryConfig(enabled=True))
    assert not Config().discovery.enabled


def test_unquoted_text_is_taken_literally() -> None:
    models = good("unquoted_text").models
    assert [(model.name, model.version) for model in models] == [("404", "1.10"), ("2024-01-31", "010"), ("no", "1e3")]
    assert list(models[2].columns) == ["on", "null"]


def test_an_alias_stands_for_its_anchor() -> None:
    first, second = good("aliases").models
    assert first.columns == second.columns == {"plan": ColumnConfig(type="categorical")}


def test_window_labels_are_kept_unless_padded() -> None:
    assert [window.label for window in good("everything").windows] == ["5m", "1h30m", "24h", "1w"]
    assert [window.label for window in good("padded_windows").windows] == ["5m", "1h", "120m", "1h30m", "1w"]


def test_baselines_are_relative_to_the_folder_of_the_file() -> None:
    text = "models: [{name: a, baseline: b/a.json}, {name: c, baseline: /srv/c.json}]"
    read = config.parse(text, name="f.yml", folder=Path("/etc/mlexporter"))
    assert [model.baseline for model in read.models] == [Path("/etc/mlexporter/b/a.json"), Path("/srv/c.json")]
    assert config.parse(text, name="f.yml").models[0].baseline == Path("b/a.json")


def test_an_error_has_its_parts() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse("limits:\n  max_series: 1\n", name="f.yml")
    (problem,) = caught.value.errors
    assert (problem.path, problem.line, problem.column) == ("limits.max_series", 2, 15)
    assert problem.message == "1 is out of range; use a whole number from 100 to 10000000"


def test_unreadable_files(tmp_path: Path) -> None:
    large = tmp_path / "large.yml"
    large.write_text("#" * (strict_yaml.MAX_SIZE + 1))
    for path, reason in [
        (tmp_path / "none.yml", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "a\0b", "cannot be read: embedded null byte"),
        (large, "larger than 1048576 bytes; no configuration is"),
    ]:
        with pytest.raises(ConfigError) as caught:
            config.load(path)
        assert str(caught.value) == f"{path}: {reason}"
    assert refusal(large.read_text()) == [" longer than 1048576 characters; no configuration is"]


def test_misspelt_discovery_is_no_reason_to_complain_of_missing_baselines() -> None:
    assert refusal("models: [{name: a}]\ndiscovery: {enabeld: true}\n") == [
        "2:13: discovery.enabeld: unknown key; did you mean enabled?"
    ]
    assert len(refusal("models: [{name: a}]\ndiscovery: {enabled: false, max_modles: 3}\n")) == 2


def test_a_small_file_that_unfolds_into_a_huge_one_is_refused() -> None:
    columns = ", ".join(f"c{index}: {{}}" for index in range(2000))
    text = f"models:\n- &m\n  name: x\n  baseline: x\n  columns: {{{columns}}}\n" + "- *m\n" * 5000
    assert refusal(text) == [
        "5:12: models[24].columns: more than 100000 values so far, counting each use of an alias; no file needs them"
    ]


def test_endless_problems_are_cut_short() -> None:
    lines = refusal("".join(f"key{index}: 1\n" for index in range(1000)))
    assert len(lines) == 101
    assert lines[99].startswith("100:1: key99: unknown key")
    assert lines[100] == " there are more problems; these are the first 100"


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: " * 50_000, "- " * 50_000, "? " * 50_000])
def test_bottomless_nesting_is_refused(text: str) -> None:
    (message,) = refusal(text)
    assert message.endswith("not valid YAML: nested more than 32 deep")


@pytest.mark.parametrize("value", ["9" * 100_000, "1." + "1" * 100_000 + "e", "1e999", "-" + "9" * 5000])
def test_endless_numbers_are_refused_quickly_and_shown_in_part(value: str) -> None:
    for setting in ("limits: {max_series: %s}", "detection: {page_tolerance: %s}", "windows: [%s]"):
        (message,) = refusal(setting % value)
        assert len(message) < 250


def error_of(read: Callable[[], Config]) -> ConfigError | None:
    try:
        assert isinstance(read(), Config)
    except ConfigError as error:
        return error
    return None


def texts_like_configurations() -> st.SearchStrategy[str]:
    """Good and bad files with pieces cut out, doubled and put elsewhere."""
    sources = [path.read_bytes().decode(errors="replace") for path in sorted(HERE.glob("*/*.yml"))]
    pieces = sorted({piece for source in sources for piece in re.findall(r"\w+|[^\w\n]+|\n *", source)})
    noise = st.sampled_from(
        ["\n", "  ", "\t", "- ", ": ", "*a", "&a ", "!", "%", "|", ">", "\0", "\u2028", "\ud800", "\\U"]
    )
    soup = st.lists(st.one_of(st.sampled_from(pieces), noise)).map("".join)

    def spliced(parts: tuple[str, str, int, int]) -> str:
        one, other, start, end = parts
        return one[: start % (len(one) + 1)] + other[end % (len(other) + 1) :]

    cuts = st.integers(0, 10_000)
    splices = st.tuples(st.sampled_from(sources), st.sampled_from(sources), cuts, cuts).map(spliced)
    return st.one_of(soup, splices)


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["1h", "16MiB", "binary"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["models", "windows", "limits", "name", "columns", "data", "version"]), st.text()
            ),
            inner,
            max_size=4,
        ),
    ),
)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text(), st.text(alphabet=st.characters()), texts_like_configurations(), values.map(yaml.safe_dump)))
@example('windows: ["\\UFFFFFFFF"]')
@example("%YAML 1.1111111111111111111111111\n---\n")
@example("&a [*a, *a]")
@example("models: &a {name: x, columns: *a}")
@example("! a")
@example("\ufeff")
def test_any_text_gives_a_configuration_or_its_errors(text: str) -> None:
    error = error_of(lambda: config.parse(text, name="f.yml"))
    if error is not None:
        lines = [problem.line for problem in error.errors]
        assert lines
        assert lines == sorted(lines)
        assert len(str(error).splitlines()) == len(lines), "each problem takes one line"
        str(error).encode()


@settings(deadline=None)
@given(content=st.binary())
def test_any_bytes_give_a_configuration_or_its_errors(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yml"
    path.write_bytes(content)
    error_of(lambda: config.load(path))


@given(st.integers(0, 10**13))
def test_durations_round_trip(milliseconds: int) -> None:
    assert scalars.parse_duration(scalars.format_duration(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("90s", 90), ("15m", 900), ("1h", 3600), ("1h30m", 5400), ("7d", 604800), ("2w", 1209600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert scalars.parse_duration(text) == seconds
    assert scalars.format_duration(seconds) == ("1m30s" if text == "90s" else "1w" if text == "7d" else text)


@pytest.mark.parametrize("text", ["", "h", "90", "1.5h", "-1h", "1h1h", "30m1h", " 1h", "1H", "1h\n", "\u0661h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"has no unit|is not a duration"):
        scalars.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("4096", 4096), ("7B", 7), ("64KiB", 65536), ("1kB", 1000), ("1KB", 1000), ("10MB", 10_000_000)],
)
def test_sizes(text: str, count: int) -> None:
    assert scalars.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "16mib", "16 MiB", "1.5MiB", "-1", "1e3", "16M"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        scalars.parse_size(text)


URLS = [
    "redis://cache", "redis://:secret@cache:6379/1", "rediss://user:secret@cache.example", "redis://[::1]:6379",
    "unix:///run/redis.sock?db=1",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_stores(url: str) -> None:
    assert scalars.store_url().parse(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "", "cache:6379", "http://:secret@cache", "redis://", "redis://:secret@", "redis:///secret", "redis://h:secret",
        "redis://h:0", "redis://h:65536", "redis://[::secret", "unix://", "redis://a secret@h", "redis://h\nsecret",
    ],
)  # fmt: skip
def test_no_stores_and_no_password_in_the_message(url: str) -> None:
    with pytest.raises(ValueError, match=r"is no URL of a Redis server|names no server|has a space or") as error:
        scalars.store_url().parse(url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "labels: URL",
        "labels: [URL]",
        "labels: {URL}",
        'labels: {"URL": 1}',
        "URL: 1",
        "labels: {stroe: {URL: 1}}",
        "labels: {store: [URL]}",
        "labels: {max_rows: 'URL'}",
        "windows: [URL]",
        "discovery: {enabled: URL}",
        "models: [{name: a, labels: {horizon: URL}, task: URL, prediction: {threshold: 'URL'}}]",
        "labels: {store: 'URL",
        "models: [{name: a, columns: {x: {timezone: URL}}}]",
        "labels: {store: 'URL secret'}",
        "URL",
    ],
)
def test_no_message_shows_a_password(text: str) -> None:
    assert "secret" not in "".join(refusal(text.replace("URL", URLS[1])))


# The documentation.


def fields_below(shape: Any, path: str = "") -> Iterator[tuple[str, msgspec.structs.FieldInfo]]:
    """Every setting by its key path, as docs/configuration.md writes it."""
    for field in msgspec.structs.fields(shape):
        key = f"{path}.{field.encode_name}" if path else field.encode_name
        base = bare(field.type)
        if get_origin(base) is tuple and not isinstance(get_args(base)[0], type):
            yield key, field  # a list of single values
        elif get_origin(base) is tuple:
            yield from fields_below(get_args(base)[0], f"{key}[]")
        elif get_origin(base) is dict:
            yield from fields_below(get_args(base)[1], f"{key}.NAME")
        elif isinstance(base, type) and issubclass(base, msgspec.Struct):
            yield from fields_below(base, key)
        else:
            yield key, field


def bare(shape: Any) -> Any:
    if get_origin(shape) in (Union, types.UnionType):
        (shape,) = (member for member in get_args(shape) if member is not types.NoneType)
    return get_args(shape)[0] if get_origin(shape) is Annotated else shape


def documented() -> dict[str, tuple[str, str]]:
    """Setting to the cells of its type and its default."""
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", DOCS.read_text(), flags=re.MULTILINE)
    assert len({row[0] for row in rows}) == len(rows)
    return {path: (kind, default) for path, kind, default in rows}


def test_each_setting_is_documented_and_no_other() -> None:
    assert sorted(documented()) == sorted(path for path, _ in fields_below(Config))


@pytest.mark.parametrize("path", [path for path, _ in fields_below(Config)])
def test_documented_default_is_the_default(path: str) -> None:
    field = dict(fields_below(Config))[path]
    _, default = documented()[path]
    if field.required:
        assert default == "required"
        return
    text = default.strip("`")
    keys = path.replace("[]", "").split(".")
    for key in reversed(keys[1:] if keys[0] == "models" else keys):
        text = f"{{{key}: {text}}}"
    if keys[0] == "models":
        text = f"{{models: [{{name: x, {text[1:-1]}}}], discovery: {{enabled: true}}}}"
    value: Any = config.parse(text, name="documented")
    for key in keys:
        value = value["NAME"] if key == "NAME" else getattr(value, key)
        value = value[0] if key == "models" else value
    assert value == field.default


@pytest.mark.parametrize("path", [path for path, _ in fields_below(Config)])
def test_documented_range_is_the_range(path: str) -> None:
    kind, _ = documented()[path]
    shape = repr(dict(fields_below(Config))[path].type)
    accepted = re.search(r"accepts='[^']*?(?:from|of) (\w+) to (\w+)", shape)
    assert (accepted is not None) == (" to " in kind)
    assert accepted is None or f"{accepted[1]} to {accepted[2]}" in kind
    for word in re.findall(r"Literal\[([^]]+)]", shape):
        assert kind == ", ".join(f"`{choice}`" for choice in re.findall(r"'(\w+)'", word))


def test_examples_of_the_documentation() -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", DOCS.read_text(), flags=re.MULTILINE | re.DOTALL)
    full, faulty = (text for language, text in blocks if language == "yaml")
    (errors,) = (text for language, text in blocks if language == "text")
    assert [model.name for model in config.parse(full, name="full").models] == ["churn", "fraud"]
    with pytest.raises(ConfigError) as caught:
        config.parse(faulty, name="mlexporter.yml")
    assert f"{caught.value}\n" == errors


# -- what is found out after it was read -------------------------------------------------------------------------------


def test_what_is_found_out_later_has_its_place(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_text("models:\n  - name: m\n    baseline: m.json\n")
    problems: list[tuple[KeyPath, str]] = [(("limits", "max_series"), "too many"), (("models", 0, "baseline"), "gone")]
    with pytest.raises(ConfigError) as caught:
        config.refuse(path, problems)
    assert str(caught.value) == f"{path}:1:1: limits.max_series: too many\n{path}:3:15: models[0].baseline: gone"


@pytest.mark.parametrize("text", ["models: [\n", "windows: [1h]\n", "wndows: [1h]\n", ""])
def test_a_file_that_has_changed_meanwhile_is_refused_all_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.yml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        config.refuse(path, [(("models", 0, "baseline"), "gone")])
