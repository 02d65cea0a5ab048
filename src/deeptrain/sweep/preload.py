"""What every run imports, imported once: the runs of a sweep are forked from a process that has imported this.

It imports and does nothing else. No thread is started here and no GPU asked for, as neither outlives a fork.
"""

import jinja2  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import sklearn.datasets  # noqa: F401
import tensorboard.plugins.hparams.summary_v2
import tensorboard.summary.writer.record_writer  # noqa: F401

import deeptrain.analysis.preview
import deeptrain.data.leaks
import deeptrain.report.card
import deeptrain.report.figures
import deeptrain.run.launch
import deeptrain.run.summary
import deeptrain.training.trainer  # noqa: F401
