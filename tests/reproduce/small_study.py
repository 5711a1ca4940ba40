"""Settings on top of those of every cell, which make the study on real CT fit a test."""

ADAM = (
    "supervised.optimizer=adam",
    "supervised.draws=8",
    "supervised.batch_size=4",
    "unsupervised.batch_size=4",
    "training.ema=0.5",
    "compute.precision=float32",
)
