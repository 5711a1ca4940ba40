"""What files say as JSON about a model: read strictly, or refused with its first fault."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Record(BaseModel):
    """Strict: every field is of its type, and there unless it has a default."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def describe_fault(error: ValidationError, whole: str) -> str:
    """Where a record is first wrong, and how; ``whole`` is its name, where it is so altogether."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"
