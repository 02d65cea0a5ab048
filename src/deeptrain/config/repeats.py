"""The settings in which runs differ that repeat one setting: the seed, and the part that is held out of k folds."""

SEED = "seed"
FOLDS, FOLD, SPLIT_SEED = "data.folds", "data.fold", "data.split_seed"
