"""What a worker process imports before its first trial ends, imported once: workers are copies of this.

torch imports its compiler when the first optimizer is made, which takes longer than everything else.
"""

from importlib import import_module

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
