"""What all sections of the configuration share: kinds of values, and how mistakes are worded."""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from glfa_jax.errors import InputError

NAME_OF_METHOD = r"^[A-Za-z0-9._-]+$"  # of an alignment

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
PairedFraction = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="share of a batch's rows that show one clip as seen by all subjects; the other "
        "rows hold a different clip of each subject, so that a batch shows more of the stimuli",
    ),
]


def _fits_float32(value: float) -> float:
    if abs(value) > (2 - 2**-23) * 2.0**127:
        raise PydanticCustomError("float32", "Input should be finite in 32 bits, up to 3.4e38")
    return value


def present_names(metrics: Any) -> Any:
    """Groups of metrics by the names that they have now."""
    if isinstance(metrics, list | tuple):
        return ["pixel" if name == "pictures" else name for name in metrics]
    return metrics


Guidance = Annotated[float, AfterValidator(_fits_float32)]
MetricNames = Annotated[tuple[str, ...], BeforeValidator(present_names)]
Subject = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")]


class ConfigError(InputError):
    """The configuration cannot be used; the message names key, value and what is allowed."""


class Section(BaseModel):
    """Messages of validators start with the key they are about, as seen from their section."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    # Names that options had in earlier versions, in files that are still read.
    former: ClassVar[dict[str, str]] = {}
    # Options that earlier versions did not have; their defaults are what those did.
    later: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _under_former_names(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for old, new in cls.former.items():
            if old in given:
                if new in given:
                    raise ValueError(f"{old}: is called {new} now, and both are given")
                given = {new if key == old else key: value for key, value in given.items()}
        return given

    def comparable(self, *, but: Iterable[str] = ()) -> dict[str, Any]:
        """Options as JSON, `but` some, to be compared with what earlier versions wrote down."""
        new = {name for name in self.later if self._is_default(name)}
        return self.model_dump(mode="json", exclude={*new, *but})

    def _is_default(self, name: str) -> bool:
        return getattr(self, name) == type(self).model_fields[name].default

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and kind in (int, float):
            raise PydanticCustomError("flag", "Input should be a number")
        return value


def once(key: str, names: tuple) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"{key}: each may be named once, got {list(names)}")
