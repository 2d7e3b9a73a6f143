"""A selector of labels, as Kubernetes has it in many places."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from agentsession_operator.api.meta import Schema

MAX_LABEL_KEY: Final = 317
"""A prefix of 253 characters, a slash, a name of 63."""
LabelKey = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63)]


class Requirement(Schema):
    """One demand on the labels."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                    "message": "are required with In and NotIn, and not allowed with Exists and DoesNotExist",
                    "fieldPath": ".values",
                }
            ]
        }
    )

    key: LabelKey
    """The label's key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """In and NotIn compare the label's value with `values`. Exists and DoesNotExist ask for the key alone."""
    values: Annotated[list[LabelValue], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """Required with In and NotIn, and not allowed with Exists and DoesNotExist."""

    @model_validator(mode="after")
    def _values_fit(self) -> Requirement:
        """The CRD's rule again: an object that was stored without it cannot be read."""
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError("values: required with In and NotIn, and not allowed with Exists and DoesNotExist")
        return self


class LabelSelector(Schema):
    """What the labels must be. All demands must hold; without any, everything is selected."""

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=32)] = {}
    """Labels that must have exactly these values."""
    match_expressions: Annotated[
        list[Requirement],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = []
    """Further demands."""
