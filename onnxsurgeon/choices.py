"""The words that settings choose from and that the code behind them shares, and the names of the groups of options.

The command line shows and checks these words before any model is opened, so this module imports nothing.
"""

OBJECTIVES = ("accuracy", "pareto")
SELECTIONS = ("best-of-each", "top-n", "random-walk")
WIDEN_MODES = ("split", "equal", "fresh")
BY_GRADIENTS = "gradient"  # units are added by ``Grow``, where data are at hand
AUGMENTATIONS = ("none", "shift", "mirror", "shift-mirror")
TRACKERS = ("tensorboard", "mlflow")
ENGINES = ("auto", "loop", "artifacts")
DEVICES = ("cpu", "cuda")
LAYOUTS = ("hwc", "chw")
IMPUTATIONS = ("mean", "median", "most-frequent")
SPLITS = ("train", "validation", "test", "all")

# Groups of options, in the order in which help shows them; settings of a search have a heading of their own.
WANTED, DATA, VALUES, RUN = "What you want", "Data", "Values", "Run"
OUTPUT, TRAINING = "Output", "Training"
GROUPS = (WANTED, DATA, VALUES, RUN, OUTPUT, TRAINING)
