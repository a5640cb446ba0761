"""The words that settings choose from and that the code behind them shares.

The command line shows and checks them before it knows that a model will be opened: importing this imports nothing.
"""

OBJECTIVES = ("accuracy", "pareto", "paper")
SELECTIONS = ("best-of-each", "top-n", "random-walk")
WIDEN_MODES = ("split", "equal", "fresh")
BY_GRADIENTS = "gradient"  # units added by ``Grow``, where data are at hand
TRACKERS = ("tensorboard", "mlflow")
