"""What a worker process imports before its first trial ends, imported once: workers are copies of this.

torch imports its compiler when the first optimizer is made, which takes longer than everything else. Ctrl-C
meanwhile ends this process without a word: the one that waits for it says what there is to say.
"""

import signal
from importlib import import_module

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

for _name in (
    "optuna.samplers",
    "optuna.storages",
    "sqlalchemy.orm",
    "torch._dynamo",
    "connsearch.data.digits",
    "connsearch.nn",
    "connsearch.search.storages.journal",
    "connsearch.search.storages.patient",
    "connsearch.search.runner",
    "connsearch.search.study",
    "connsearch.train.loop",
):
    import_module(_name)
