"""The paper's Table 1 again: every strategy on every fold, each a run folder, and one page."""
