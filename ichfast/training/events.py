"""TensorBoard's event files beside a run's log, for anyone who watches many runs."""

from pathlib import Path
from typing import Any

from ichfast.errors import OutputError

try:
    from torch.utils.tensorboard import SummaryWriter
except ModuleNotFoundError as error:
    raise OutputError(
        f"--tensorboard needs {error.name}, which is not installed: pip install tensorboard."
    ) from error


class Events:
    """Writes what the log gets. What lies there of epochs from ``epochs`` on, TensorBoard drops."""

    def __init__(self, folder: Path, epochs: int) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=epochs)

    def write(self, record: dict[str, Any]) -> None:
        """A line of the log, as :func:`ichfast.training.loop.make_record` makes it."""
        numbers = {"schedule/probability": record["probability"], "seconds": record["seconds"]}
        for name, loss in (record.get("parts") or {record["step"]: record["loss"]}).items():
            numbers[f"loss/{name}"] = loss
        for name, value in (record["validation"] or {}).items():
            if value is not None:
                numbers[f"validation/{name}"] = value
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, record["epoch"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
