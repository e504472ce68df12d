"""distill.toml and flags, as one frozen tree.

A field is *identity* when the bytes of an artefact follow from it: changing it makes a run stale.
A field is *operational*, marked with the reason, when it only changes how fast or where.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from distill.errors import UsageError
from distill.files import read_text
from distill.records import Json

Setting = tuple[str, str]
"""A setting by the names of its table and of its own."""
Tables = Mapping[str, Mapping[str, Any]]
"""Tables of distill.toml."""
MAX_SEED = 2**32 - 1
"""NumPy takes no larger one."""


def operational(default: Any, description: str, why: str, **limits: Any) -> Any:
    """A field that no artefact's bytes follow from, and why they do not."""
    extra: Json = {"operational": why}
    return Field(default, description=description, json_schema_extra=extra, **limits)


def personal(default: Any, description: str, why: str, does: str) -> Any:
    """An operational field that only the user may set, and what it could do in another's hands.

    It is taken from flags, `--config` and the user's own file (`distill.sources`), never from files
    that travel with data.
    """
    extra: Json = {"operational": why, "personal": does}
    return Field(default, description=description, json_schema_extra=extra)


class Section(BaseModel):
    """A table of distill.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: Any) -> Any:
        # Python takes true for 1; in a settings file it is a slip.
        if isinstance(value, bool):
            raise ValueError("no setting is true or false")
        return value

    def identity(self) -> Json:
        """The fields that artefacts follow from."""
        names = {name for name, is_identity in self.classified() if is_identity}
        return self.model_dump(mode="json", include=names)

    @classmethod
    def classified(cls) -> Iterator[tuple[str, bool]]:
        """Each field's name, and whether it is identity."""
        for name, field in cls.model_fields.items():
            extra = field.json_schema_extra
            yield name, not (isinstance(extra, dict) and "operational" in extra)

    @classmethod
    def personal(cls) -> dict[str, str]:
        """What each of the fields that only the user may set could do, by name."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        return {
            name: str(extra["personal"])
            for name, extra in extras.items()
            if isinstance(extra, dict) and "personal" in extra
        }


def redacted_url(url: str) -> str:
    """A URL without user, password and query, fit to be printed and stored."""
    return re.sub(r"(?<=//)[^/?#]*@", "", re.split(r"[?#]", url, maxsplit=1)[0])


class DataConfig(Section):
    """[data]: what is generated, and how it is sieved."""

    target: int = Field(
        2000,
        ge=0,
        le=1_000_000,
        description="accepted examples over all rules, your own rows among them; 0: nothing is "
        "generated beside those",
    )
    rows: Path | None = operational(
        None,
        "your own labelled rows, JSON Lines in gold's forms; in a file, relative to its folder",
        "what it holds is part of the workflow",
    )
    seed: int = Field(
        0, ge=0, le=MAX_SEED, description="seed of the plan, the teacher and the split"
    )
    styles: tuple[str, ...] = Field(
        ("question", "request", "keywords", "chatty"),
        min_length=1,
        description="ways of asking that the plan cycles through",
    )
    max_prompt_chars: int = Field(4000, ge=1, description="longer prompts are rejected")
    near_duplicate: float = Field(
        0.85,
        gt=0,
        le=1,
        description="Jaccard similarity of character 3-grams from which on two "
        "prompts of one split count as the same",
    )
    dev_share: float = Field(0.1, gt=0, lt=0.5, description="share of families held out for dev")
    test_share: float = Field(0.1, gt=0, lt=0.5, description="share of families held out for test")
    max_rounds: int = Field(4, ge=1, description="times that a deficit is asked for again")


class Price(Section):
    """What a model's tokens cost, in USD for a million."""

    prompt: float = Field(ge=0, description="USD for a million prompt tokens")
    cached: float | None = Field(
        None, ge=0, description="of them, those that were in the server's cache; None: as the rest"
    )
    completion: float = Field(ge=0, description="USD for a million completion tokens")


class TeacherConfig(Section):
    """[teacher]: who writes the data."""

    kind: Literal["grammar", "openai", "vllm"] = Field("grammar", description="who writes the data")
    model: str = Field(
        "", description="the model's name at the server; for vllm a hub id or folder"
    )
    base_url: str = personal(
        "",
        "where the server is",
        "where a model is served does not change what it is",
        "prompts and a key are sent there",
    )
    api_key_env: str = personal(
        "OPENAI_API_KEY",
        "the environment variable that holds the key",
        "a key is not content",
        "the variable's value is sent to the server",
    )
    temperature: float = Field(1.0, ge=0, le=2, description="sampling temperature")
    max_tokens: int = Field(
        512,
        ge=16,
        description="upper bound of a reply, in tokens; one of 8192 or twice as many applies once "
        "a model's thoughts have cut a reply short",
    )
    batch: int = Field(1, ge=1, le=32, description="scenarios of one rule asked for in one request")
    concurrency: int = operational(
        16,
        "requests under way at one time, at most",
        "results are written in plan order",
        ge=1,
        le=2048,
    )
    requests_per_minute: float | None = operational(
        None, "requests per minute, at most", "results are written in plan order", gt=0
    )
    tokens_per_minute: float | None = operational(
        None, "tokens per minute, at most", "results are written in plan order", gt=0
    )
    timeout: float = operational(60.0, "seconds for one request", "a slow reply is the same", gt=0)
    attempts: int = operational(
        8, "tries of a request that may pass", "what passed at last is the same", ge=1
    )
    patience: float = operational(
        600.0, "seconds that a request may wait for rate limits", "a late reply is the same", ge=0
    )
    gate: float = operational(
        0.8,
        "share of gold that the teacher must route right before it writes; 0: do not ask",
        "it decides whether to write, not what",
        ge=0,
        le=1,
    )
    budget_usd: float | None = operational(
        None, "USD that the run may spend in all", "what was bought is the same", gt=0
    )
    budget_tokens: int | None = operational(
        None, "tokens that the run may use in all", "what was bought is the same", ge=1
    )
    prices: dict[str, Price] = operational(
        {}, "prices of models, over those that distill knows", "a price is not content"
    )
    vllm_command: str = personal(
        "",
        "the command that starts vLLM, if it has its own environment",
        "it serves the same model",
        "it is run",
    )
    vllm_args: tuple[str, ...] = personal(
        (),
        "further arguments for vLLM's server",
        "it serves the same model",
        "they can make vLLM load code",
    )
    start_timeout: float = operational(
        600.0, "seconds in which vLLM must be ready", "a late server is the same", gt=0
    )

    @property
    def address(self) -> str:
        """Where an OpenAI-compatible server is; nothing: where the openai client says."""
        # The openai client reads the same variable; read here, it is checked like the setting.
        return self.base_url or os.environ.get("OPENAI_BASE_URL", "")


class TrainConfig(Section):
    """[train]: the student and how it is tuned. None means: as is sensible for the student."""

    student: str = Field(
        "embedded", min_length=1, description="embedded, smollm2, a hub id, or a folder"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of initialisation and order")
    epochs: float | None = Field(None, gt=0, description="passes over the training split")
    learning_rate: float | None = Field(None, gt=0, description="peak learning rate")
    batch_size: int | None = Field(None, ge=1, description="rows per optimizer step")
    max_length: int | None = Field(None, ge=16, description="tokens; longer rows are rejected")
    lora_r: int | None = Field(None, ge=1, description="LoRA rank")
    lora_alpha: int | None = Field(None, ge=1, description="LoRA scale")
    decision_weight: float | None = Field(
        None,
        ge=1,
        description="weight in the loss of the tokens at which the allowed answers part",
    )
    declarations: Literal["full", "names", "none"] | None = Field(
        None, description="what the prompt says of the tools"
    )
    tuning: Literal["lora", "full"] = Field(
        "lora", description="whether an adapter is trained, or every weight"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="what is computed in; auto: bf16 where the machine multiplies it"
    )
    prefix_sharing: Literal["auto", "cache", "flat", "off"] = operational(
        "auto",
        "how the beginning that rows share is computed once",
        "the same result, rounding aside",
    )
    rows_at_once: int = operational(
        16,
        "rows whose activations are held at one time, beside the shared beginning",
        "the same result, rounding aside",
        ge=1,
    )
    gradient_checkpointing: Literal["on", "off"] = operational(
        "off", "whether activations are computed twice to save memory", "the same result"
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = operational(
        "auto", "what computes attention", "the same result, rounding aside"
    )
    threads: int = operational(
        0,
        "threads to compute with; 0: one for each CPU that no other process uses",
        "the same result, rounding aside",
        ge=0,
    )


class EvaluateConfig(Section):
    """[evaluate]: how predictions are made."""

    max_new_tokens: int = Field(96, ge=8, description="longer outputs count as malformed")
    batch_size: int = operational(
        32, "prompts decoded together", "each is decoded as if it stood alone", ge=1
    )
    constrained: Literal["on", "off"] = Field(
        "off", description="whether an answer that is no valid call or reply is made one"
    )
    backend: Literal["transformers", "vllm"] = operational(
        "transformers", "what the student runs on", "the same result, rounding aside"
    )


class Config(Section):
    """Every setting of a run."""

    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @classmethod
    def load(
        cls, path: Path | None, flags: Tables | None = None, *, beneath: Tables | None = None
    ) -> Self:
        """Settings from `path` (None: defaults), overridden by flags that are not None.

        beneath: valid tables that the file and the flags win over
        Raises UsageError naming the file, or the setting, and what was expected.
        """
        file = _beside(path, read_toml(path)) if path else {}
        given = {name: {k: v for k, v in t.items() if v is not None} for name, t in _all(flags)}
        try:
            return cls.model_validate(overlaid(beneath or {}, file, given))
        except ValidationError as error:
            raise _usage_error(error, path, given) from None

    @classmethod
    def personal_settings(cls) -> dict[Setting, str]:
        """The settings that only the user may set, and what each could do in another's hands."""
        return {
            (section, name): does
            for section, model in cls()
            if isinstance(model, Section)
            for name, does in model.personal().items()
        }

    def value(self, setting: Setting) -> Any:
        section, name = setting
        return getattr(getattr(self, section), name)

    def replacing(self, settings: Iterable[Setting], other: Config) -> Self:
        """These settings, but for some that are taken from `other`."""
        made = self
        for section, name in settings:
            table = getattr(made, section).model_copy(update={name: other.value((section, name))})
            made = made.model_copy(update={section: table})
        return made


def _beside(path: Path, tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a file, with the file that one of them names found from its folder."""
    rows = tables.get("data", {}).get("rows")
    if not isinstance(rows, str):
        return tables
    return overlaid(tables, {"data": {"rows": str(path.parent / rows)}})


def overlaid(*layers: Tables) -> dict[str, dict[str, Any]]:
    """Tables as one: of a setting that several have, the last one's value."""
    tables: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            tables[section] = {**tables.get(section, {}), **values}
    return tables


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UsageError for what is not TOML, or outside of a table."""
    try:
        tables = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"is not valid TOML: {error}", place=path, hint="correct it there; see https://toml.io"
        ) from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(
                f"{name} stands outside of a table",
                place=path,
                hint=f"put it under one of: {', '.join(f'[{s}]' for s in Config.model_fields)}",
            )
    return tables


def _all(tables: Tables | None) -> Iterable[tuple[str, Mapping[Any, Any]]]:
    for name, table in (tables or {}).items():
        if not isinstance(table, Mapping):
            cause = f"is a table of settings, not {type(table).__name__}"
            raise UsageError(cause, place=name, hint='give a dictionary, as {"target": 500}')
        yield name, table


def _usage_error(error: ValidationError, path: Path | None, flags: Tables) -> UsageError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"] if part != "[key]"]
    key = ".".join(location)
    given = {str(name) for name in flags.get(location[0], {})}
    from_flag = path is None or (len(location) > 1 and location[1] in given)
    place, subject = (key, "") if from_flag else (str(path), f"{key}: ")
    if first["type"] == "extra_forbidden":
        place = "" if from_flag else place
        return UsageError(f"unknown setting {key}", place=place, hint=_near_setting(location))
    text = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return UsageError(f"{subject}{text}", place=place, hint=f"it was given {first['input']!r}")


def _near_setting(location: list[str]) -> str:
    known = list(Config.model_fields)
    if len(location) > 1:
        section = Config.model_fields[location[0]].annotation
        assert section is not None
        known = list(section.model_fields)
    near = difflib.get_close_matches(location[-1], known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
