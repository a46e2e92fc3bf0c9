"""Settings: strict YAML, one declaration for flags, variables and files, errors that say where and what."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nas.catalogue_settings import SpacesSettings
from nas.config import (
    ConfigError,
    Settings,
    build,
    from_flags,
    from_saved,
    from_variables,
    from_yaml,
    options,
    resumed,
)
from nas.run_settings import DashboardSettings, ExportSettings, ShowSettings
from nas.search_settings import SearchSettings
from nas.strict_yaml import mapping, scalar
from nas.train_settings import TrainSettings
from search_spaces.errors import InputError

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{key}: &{key} [{','.join(['*' + before] * 9)}]\n" for before, key in zip("abcdefgh", "bcdefghi")
)
BAD = {
    "unknown key": ("epoch: 3\n", "line 1: unknown setting 'epoch'; did you mean 'epochs'?"),
    "unknown key later": ("seed: 1\n\nbatch-sise: 3\n", "line 3: unknown setting 'batch-sise'; did you mean"),
    "nothing like it": (
        "seed: 1\nzzzzzz: 3\n",
        "line 2: unknown setting 'zzzzzz'; --help lists the settings",
    ),
    "duplicate": ("lr: 0.1\nseed: 1\nlr: 0.2\n", "line 3: 'lr' was already set on line 1"),
    "two spellings": (
        "batch-size: 1\nbatch_size: 2\n",
        "line 2: 'batch_size' was already set as 'batch-size'",
    ),
    "duplicate below": ("space_settings:\n  a: 1\n  a: 2\n", "line 3: 'a' was already set on line 2"),
    "text for a number": ("seed: 1\nlr: fast\n", "line 2: lr = 'fast': expected a number"),
    "quoted number": ('epochs: "3"\n', "line 1: epochs = '3': expected a whole number"),
    "fraction": ("epochs: 1.5\n", "line 1: epochs = 1.5: expected a whole number"),
    "switch for a number": ("epochs: true\n", "line 1: epochs = true: expected a whole number"),
    "number for a switch": ("dry_run: 1\n", "line 1: dry_run = 1: expected true or false"),
    "no is text": ("dry_run: no\n", "line 1: dry_run = 'no': expected true or false"),
    "number for text": ("name: 12\n", 'line 1: name = 12: expected text; quote it: "12"'),
    "list for text": ("name: [a]\n", "line 1: name: expected text, found a list"),
    "list for pairs": ("space_settings: [a]\n", "line 1: space_settings: expected KEY: VALUE pairs"),
    "nothing": ("seed:\n", "line 1: seed = nothing: expected a whole number"),
    "too small": ("epochs: 0\n", "line 1: epochs = 0: must be at least 1"),
    "infinite": ("lr: .inf\n", "line 1: lr = inf: expected a number"),
    "not a number": ("lr: .nan\n", "line 1: lr = nan: expected a number"),
    "unknown name": ("space: vitt\n", "line 1: space: unknown name 'vitt'; did you mean 'vit'?"),
    "aliases": (LAUGHS, "line 1: anchors and aliases (& and *) are not allowed"),
    "merge by alias": ("a: {b: 1}\n<<: *a\n", "line 2: anchors and aliases"),
    "tag": ("seed: !!python/object/apply:os.system ['x']\n", "line 1: tags ("),
    "own tag": ("seed: !secret 3\n", "line 1: tags (!secret) are not allowed"),
    "deep": ("a: " + "[" * 100_000, "line 1: nested deeper than 32 levels"),
    "deep by dashes": ("- " * 100_000, "line 1: nested deeper than 32 levels"),
    "many": ("a: [" + "1," * 100_000 + "]", "line 1: more than 5000 values"),
    "large": ("# " + "x" * 1_000_000 + "\n", "larger than 1,000,000 bytes"),
    "long number": ("seed: " + "1" * 5000, "line 1: a whole number of 5000 digits"),
    "number as key": ("seed: 1\n2: 3\n", "line 2: the key '2' is not text (quote it)"),
    "list as key": ("? [a]\n: 1\n", "line 1: the key"),
    "tab": ("space_settings:\n\ta: 1\n", "line 2: not YAML: found character '\\t'"),
    "open quote": ('seed: 1\nname: "x\n', "not YAML: found unexpected end of stream"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "line 2: not YAML"),
    "a list": ("- seed\n", "expected 'key: value' lines, found a list"),
    "a word": ("seed\n", "expected 'key: value' lines, found the text 'seed'"),
    "zero byte": ("name: 'a\0b'\n", "not YAML: unacceptable character"),
}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.yaml"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_at_once_by_line_and_reason(tmp_path: Path, name: str) -> None:
    text, expected = BAD[name]
    path = written(tmp_path, text)
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        build(TrainSettings, from_yaml(path))
    assert time.process_time() - start < 2.0
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_reads_as_yaml_1_2(tmp_path: Path) -> None:
    text = (
        "a: 1e-3\nb: no\nc: True\nd: .5\ne: 010\nf: 0x10\ng: 1_000\nh: 12:30\ni: 2026-01-31\nj: ~\nk: 'yes'\n"
        "l: -.inf\nm: +3\nn: on\n<<: {o: 1}\n"
    )
    assert mapping(text, "x").values == {
        "a": 0.001,
        "b": "no",
        "c": True,
        "d": 0.5,
        "e": 10,
        "f": "0x10",
        "g": "1_000",
        "h": "12:30",
        "i": "2026-01-31",
        "j": None,
        "k": "yes",
        "l": float("-inf"),
        "m": 3,
        "n": "on",
        "<<": {"o": 1},
    }


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert build(TrainSettings, from_yaml(written(tmp_path, "# nothing yet\n"))) == TrainSettings()


def test_a_file_that_is_not_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"seed: 1\nname: \xff\xfe\n")
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        from_yaml(path)
    with pytest.raises(FileNotFoundError):
        from_yaml(tmp_path / "absent.yaml")
    with pytest.raises(IsADirectoryError):
        from_yaml(tmp_path)


def test_dashes_and_underscores_are_the_same(tmp_path: Path) -> None:
    text = "batch-size: 3\nspace-settings:\n  image-size: 32\n"
    settings = build(TrainSettings, from_yaml(written(tmp_path, text)))
    assert settings.batch_size == 3
    assert settings.space_settings == {"image_size": 32}


@given(st.data())
def test_did_you_mean_finds_the_key_that_was_edited(data: st.DataObject) -> None:
    known = [option.name for option in options(SearchSettings) if len(option.name) >= 6]
    key = data.draw(st.sampled_from(known))
    place = data.draw(st.integers(0, len(key) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
    edited = data.draw(
        st.sampled_from(
            [
                key[:place] + key[place + 1 :],
                key[:place] + letter + key[place:],
                key[:place] + letter + key[place + 1 :],
            ]
        )
    )
    assume(edited not in {option.name for option in options(SearchSettings)})
    assume(edited.strip("_") == edited)
    document = mapping(f"{edited}: 1\n", "study.yaml")
    with pytest.raises(ConfigError, match="did you mean"):
        build(SearchSettings, from_saved(document.values, document.where(edited)))


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        assert isinstance(mapping(text, "x").values, dict)
    except InputError as error:
        assert str(error).startswith("x")  # noqa: PT017 - any text may be right or wrong


LETTERS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=20)  # no \\u pairs


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**12), 10**12) | LETTERS | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LETTERS, inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_reads_back_unchanged(value: object) -> None:
    """JSON is YAML: a run.json's settings can be copied into a study file."""
    text = json.dumps({"key": value})
    assume("Infinity" not in text)
    assert mapping(text, "x").values == {"key": value}


def test_layers_override_in_order(tmp_path: Path) -> None:
    flags = from_flags(TrainSettings, {"epochs": "2", "seed": None, "space_settings": []})
    variables = from_variables(
        TrainSettings, {"NAS_EPOCHS": "3", "NAS_SEED": "3", "NAS_NAME": "", "OTHER": "x"}
    )
    file = from_yaml(written(tmp_path, "epochs: 4\nseed: 4\nlr: 1e-2\n"))
    settings = build(TrainSettings, flags, variables, file)
    assert (settings.epochs, settings.seed, settings.lr, settings.name) == (2, 3, 0.01, None)
    assert settings.batch_size == TrainSettings().batch_size


def test_a_value_that_is_overridden_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study\.yaml, line 1: epochs = 'x'"):
        build(
            TrainSettings,
            from_flags(TrainSettings, {"epochs": "2"}),
            from_yaml(written(tmp_path, "epochs: x")),
        )


def test_errors_call_a_setting_as_the_user_did() -> None:
    with pytest.raises(ConfigError, match=r"^--batch-size = 'x': expected a whole number$"):
        build(TrainSettings, from_flags(TrainSettings, {"batch_size": "x"}))
    with pytest.raises(ConfigError, match=r"^NAS_BATCH_SIZE = 'x': expected"):
        build(TrainSettings, from_variables(TrainSettings, {"NAS_BATCH_SIZE": "x"}))
    with pytest.raises(ConfigError, match=r"^--space-set: expected KEY=VALUE, found 'width'$"):
        build(TrainSettings, from_flags(TrainSettings, {"space_settings": ["width"]}))
    with pytest.raises(ConfigError, match="run is missing"):
        build(ExportSettings)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("yes", True), ("ON", True), ("1", True), ("false", False), ("no", False), ("0", False)],
)
def test_a_switch_in_a_variable(text: str, value: bool) -> None:
    assert build(TrainSettings, from_variables(TrainSettings, {"NAS_DRY_RUN": text})).dry_run is value


@pytest.mark.parametrize(
    ("text", "value"),
    [("2M", 2_000_000), ("300k", 300_000), ("1.5G", 1_500_000_000), ("12", 12), (12, 12), (2e6, 2_000_000)],
)
def test_counts_take_suffixes(text: object, value: int) -> None:
    assert build(SearchSettings, from_saved({"max_params": text, "searcher": "a:b"}, "x")).max_params == value


@pytest.mark.parametrize(("text", "value"), [("8", 8.0), ("8ms", 8.0), ("0.5 ms", 0.5), (2, 2.0)])
def test_latency_takes_its_unit(text: object, value: float) -> None:
    assert SearchSettings(max_latency_ms=text, searcher="a:b").max_latency_ms == value


@pytest.mark.parametrize("text", ["", "2X", "-3", "0", "nan", "inf", "1e400", "M", True, [1]])
def test_counts_refuse_what_is_no_amount(text: object) -> None:
    with pytest.raises(InputError, match="max_params"):
        SearchSettings(max_params=text, searcher="a:b")


@pytest.mark.parametrize("given_as", ["accuracy,params", ["accuracy", "params"], ("accuracy , params",)])
def test_objectives_are_a_list_or_a_line(given_as: object) -> None:
    assert SearchSettings(objectives=given_as, searcher="a:b").objectives == ("accuracy", "params")


def test_objectives_are_known_and_different() -> None:
    with pytest.raises(InputError, match="unknown name 'latncy'; did you mean 'latency'"):
        SearchSettings(objectives="accuracy,latncy", searcher="a:b")
    with pytest.raises(InputError, match="twice"):
        SearchSettings(objectives="accuracy,accuracy", searcher="a:b")
    with pytest.raises(InputError, match="expected one of"):
        SearchSettings(objectives=" , ", searcher="a:b")


def test_pairs_take_any_yaml_value() -> None:
    layer = from_flags(
        TrainSettings, {"space_settings": ["width=1.2", "depths=[2, 3]", "name=x=y", "stem-kernel=3"]}
    )
    expected = {"width": 1.2, "depths": [2, 3], "name": "x=y", "stem_kernel": 3}
    assert build(TrainSettings, layer).space_settings == expected
    assert scalar("", "x") is None


def test_settings_survive_json() -> None:
    settings = SearchSettings(
        space_settings={"width": 1.2},
        objectives=("accuracy", "macs"),
        max_macs="50M",
        searcher="a:b",
        target="jetson",
    )
    saved = json.loads(json.dumps(settings.as_dict()))
    assert build(SearchSettings, from_saved(saved, "run.json")) == settings
    assert dataclasses.replace(settings, seed=1).seed == 1


def test_a_search_shares_the_settings_of_the_training() -> None:
    search = SearchSettings(epochs=3, seed=5, space="vit", searcher="a:b", name="x")
    training = search.training()
    assert type(training) is TrainSettings
    assert (training.epochs, training.seed, training.space) == (3, 5, "vit")


def test_a_resumed_run_keeps_its_settings() -> None:
    saved = from_saved(TrainSettings(lr=0.1, epochs=3, name="a").as_dict(), "runs/a/run.json")

    def resume(**flags: str) -> TrainSettings:
        return resumed(TrainSettings, saved, from_flags(TrainSettings, {"resume": "runs/a", **flags}))

    assert (resume().lr, resume().epochs, resume().resume) == (0.1, 3, "runs/a")
    assert resume(lr="1e-1", epochs="3").lr == 0.1
    assert resume(device="cuda", checkpoint_minutes="1").device == "cuda"
    with pytest.raises(
        ConfigError, match=r"--lr = '0.2': the run has 0.1, and a resumed run keeps its settings"
    ):
        resume(lr="0.2")


@pytest.mark.parametrize(
    "cls", [TrainSettings, SearchSettings, ExportSettings, ShowSettings, DashboardSettings, SpacesSettings]
)
def test_every_setting_is_described(cls: type[Settings]) -> None:
    for option in options(cls):
        assert option.setting.help
        assert option.setting.help[0].islower() or option.setting.help.split()[0].isupper()
        assert not option.setting.help.endswith(".")
        assert option.type in (bool, int, float, str, tuple, dict)
        assert len(option.flag) + len(option.setting.metavar or "") < 28, (
            "does not fit the column of the help"
        )


def test_a_dashboard_needs_one_source() -> None:
    with pytest.raises(InputError, match="--storage"):
        DashboardSettings()
    with pytest.raises(InputError, match="--storage"):
        DashboardSettings(run="runs/a", storage="sqlite:///a.db")
