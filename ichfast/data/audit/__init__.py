"""What is odd about folders of CT files, found without reading them into memory."""

from ichfast.data.audit.look import DISAGREE
from ichfast.data.audit.survey import Options, audit

__all__ = ["DISAGREE", "Options", "audit"]
